# stagecast in a container, run as nobody in an image without a shell.
# docker build -t stagecast . && docker run --rm -p 9464:9464 stagecast demo --set http.listen=0.0.0.0:9464
FROM rust:1-bookworm AS build
WORKDIR /src
# zlib goes into the binary: the image below has none.
ENV LIBZ_SYS_STATIC=1
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY benches benches
COPY models models
COPY src src
COPY README.md ./
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile production --locked --bin stagecast && \
    cp target/production/stagecast /usr/local/bin/stagecast

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/stagecast /usr/local/bin/stagecast
COPY LICENSE /
WORKDIR /etc/stagecast
EXPOSE 9464
USER nonroot
ENTRYPOINT ["/usr/local/bin/stagecast"]
CMD ["run"]
