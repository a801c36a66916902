# shellcheck shell=bash
# What script/bootstrap, script/demo and script/test share. Sourced from the repository's root.

export SSL_CERT_FILE=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

say() { printf '\033[1m==>\033[0m [%s] %s\n' "$(date +%T)" "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# retry COMMAND…: registries and mirrors can fail once and answer the next time.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return
    [ "$attempt" = 3 ] || { say "failed, trying again in 5 s: $*"; sleep 5; }
  done
  return 1
}

# packages NAME…: install Debian packages.
packages() {
  command -v apt-get >/dev/null || fail "please install by hand: $* (only Debian's apt-get is known here)"
  retry as_root apt-get update -qq
  retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The image's name changes with what it is made from.
base_image_tag() {
  echo "dask-service-base:$(cat images/base/* | sha256sum | cut -c1-12)"
}

# Which copy of the service: its containers, network, volumes and state carry this prefix.
use_prefix() {
  export DASK_SERVICE_PREFIX=$1
  export MOLECULE_EPHEMERAL_DIRECTORY=$PWD/.state/$1/molecule
  export PATH=$PWD/.venv/bin:$PATH
}
