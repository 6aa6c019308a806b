#!/usr/bin/env bash
# OpenSSL is configured by the smallest perl there is (Debian's `perl-base`, with what .cargo/perl has of the rest) as it is
# by all of perl: whatever that makes and generates is compared.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
manifest=$(cargo metadata --locked --format-version 1 | node -e '
  const { packages } = JSON.parse(require("fs").readFileSync(0));
  console.log(packages.find(({ name }) => name === "openssl-src").manifest_path);')

# Away with all folders but that of `perl-base`; where modules lie together, what is at hand is used instead of them.
mkdir "$scratch/bin"
perl=$(command -v perl)
if perl -e 'exit !grep m{/perl-base\z}, @INC'; then
  away=$(perl -e 'print join ",", grep !m{/perl-base\z}, @INC')
  printf '#!/bin/sh\nexec %s "-M-lib=%s" "$@"\n' "$perl" "$away" >"$scratch/bin/perl"
else
  printf '#!/bin/sh\nPERL5LIB="%s:${PERL5LIB:-}" exec %s "$@"\n' "$PWD/.cargo/perl" "$perl" >"$scratch/bin/perl"
fi
chmod +x "$scratch/bin/perl"

# In the same folder both times, since its name is written down.
make_with() {
  rm -rf "$scratch/openssl"
  cp -r "$(dirname "$manifest")/openssl" "$scratch/openssl"
  (
    cd "$scratch/openssl"
    export PATH=$1:$PATH PERL=$perl HASHBANGPERL='/usr/bin/env perl' SOURCE_DATE_EPOCH=0 PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
    "$OLDPWD/.cargo/openssl.sh" ./Configure linux-x86_64 no-shared no-module no-tests no-comp no-zlib
    make -j2 build_generated
  ) >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
  # Which perl it was may be told.
  grep -rlE "/(openssl\.sh|perl)\b" "$scratch/openssl" | xargs sed -i "s#$PWD/.cargo/openssl.sh#perl#g; s#/usr/bin/env perl#perl#g; s#$perl#perl#g"
  mv "$scratch/openssl" "$scratch/$2"
}
make_with "$scratch/bin" small
make_with "$(dirname "$perl")" whole
diff -r --exclude paramnames.pm "$scratch/small" "$scratch/whole" >&2
echo "OpenSSL: configured the same by perl-base and by all of perl"
