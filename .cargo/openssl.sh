#!/bin/sh
# Stands in for perl where OpenSSL is configured, and adds what a client of Kafka can do without: protocols that are not
# TLS over TCP, certificates being requested, stamped and archived, engines, and ciphers and digests that TLS 1.2 and
# 1.3 do not negotiate or that only the legacy provider would offer, which is not built either. -O1, as what encrypts is
# written in assembly. Called for anything but `Configure` it is perl.
#
# Debian's `perl-base`, which is always there, lacks modules that OpenSSL's configuration asks for. Where they are not
# found, perl/ beside this file has as much of them as is asked for, and make runs this as its perl too.
set -e
case "$1" in
*Configure)
  needed='require "$_.pm" for qw(File/Compare File/Copy File/Spec/Functions FindBin Getopt/Std IPC/Cmd PerlIO/scalar Pod/Usage Time/Piece)'
  if ! perl -e "$needed" 2>/dev/null; then
    # Scripts begin with the other: perl leaves a script to whatever stands there if that is not called perl.
    export PERL="$0" HASHBANGPERL='/usr/bin/env perl'
    # In the copy that is built: the one place that prints to a file in memory.
    names=util/perl/OpenSSL/paramnames.pm
    sed "s/open(local \*STDOUT, '>', /local *STDOUT; require Held; tie(*STDOUT, 'Held', /" $names >$names.held
    mv $names.held $names
  fi
  set -- "$@" \
    no-afalgeng no-apps no-argon2 no-aria no-async no-bf no-blake2 no-cast no-cmp no-cms no-ct no-docs no-dsa no-dtls \
    no-ec2m no-engine no-gost no-integrity-only-ciphers no-lms no-md4 no-mdc2 no-nextprotoneg no-ocb no-psk no-quic \
    no-rc2 no-rc4 no-rfc3779 no-rmd160 no-sctp no-siphash no-siv no-slh-dsa no-sm2 no-sm3 no-sm4 no-srp no-srtp \
    no-ssl-trace no-tfo no-ts no-whirlpool \
    -O1
  [ "${PERL:-}" = "$0" ] || exec perl "$@"
  ;;
esac
PERL5LIB=$(dirname "$0")/perl${PERL5LIB:+:$PERL5LIB} exec perl "$@"
