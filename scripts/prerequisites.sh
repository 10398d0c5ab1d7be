#!/usr/bin/env bash
# Installs what ftstream's local stack and tests need, and only what is missing.
# Debian and Ubuntu: as root or through sudo. macOS: prints the line for Homebrew.
set -euo pipefail

java_is_17() {
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || return 1
  [ "${major:-0}" -ge 17 ]
}

# Not on PATH on Debian, hence the folders.
postgres_is_14() {
  local initdb
  for initdb in /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"; do
    [ -x "$initdb" ] || continue
    [ "$("$initdb" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 14 ] && return 0
  done
  return 1
}

# `python3 -m venv` exists without the package that makes it work.
venv_works() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

missing=()
java_is_17 || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
postgres_is_14 || missing+=(postgresql)
venv_works || missing+=(python3-venv)
# Lies in /usr/sbin, which a user's PATH may leave out.
PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null || missing+=(pgbouncer)

if [ "${#missing[@]}" -eq 0 ]; then
  echo "Nothing is missing."
  exit 0
fi

if [ "$(uname -s)" = Darwin ]; then
  echo "Install what is missing of these with Homebrew:"
  echo "  brew install openjdk@17 maven postgresql@17 pgbouncer python@3.12"
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "This script knows Debian, Ubuntu and macOS only. Install by your own means: Java 17 or" >&2
  echo "newer, Maven, the PostgreSQL server 14 or newer with contrib, pgbouncer, Python's venv." >&2
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "Neither root nor sudo. As root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi
run() { "${as_root[@]+"${as_root[@]}"}" "$@"; }

echo "Installing: ${missing[*]}"

# Debian makes and starts a cluster with the server; the stack has clusters of its own.
clusters=/etc/postgresql-common/createcluster.conf
if [[ " ${missing[*]} " == *" postgresql "* ]] && ! grep -qs '^ *create_main_cluster' "$clusters"; then
  run mkdir -p "${clusters%/*}"
  printf 'create_main_cluster = false\n' | run tee -a "$clusters" >/dev/null
fi

# pgbouncer's package starts a service, and a test starts its own. A policy-rc.d that answers 101
# keeps any service from being started during this install; one that is there already is respected.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'run rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | run tee "$policy" >/dev/null
  run chmod 755 "$policy"
fi

# --force-confold: the createcluster.conf above is ours, and no one is there to be asked about it.
run apt-get update -q
run env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
  -o Dpkg::Options::=--force-confold "${missing[@]}"

# Nor is it to start at the next boot, where systemd would do that.
if [[ " ${missing[*]} " == *" pgbouncer "* ]] && [ -d /run/systemd/system ]; then
  run systemctl disable --quiet pgbouncer
fi
