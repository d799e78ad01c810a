#!/bin/sh
# Make the secrets that compose.yaml mounts, once: docker/make-secrets.sh [FOLDER]
#
# What is there is kept, since the database remembers its passwords. Compose mounts each file as it
# is, and the containers' users are not you: so files can be read by all, in a folder that nobody but
# you can enter.
set -eu
umask 022
cd "$(dirname "$0")"
folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# make FILE TEXT: a file that was cut short by an interruption would be kept for ever
make() {
    [ -e "$1" ] || { printf '%s\n' "$2" > "$1.new" && mv "$1.new" "$1"; }
}

make database_admin.txt "$(random)"
make database_search.conf "[glora]
password=$(random)"
make database_reader.conf "[glora]
password=$(random)"
make ray_token.txt "$(random)"
make server_token.txt "$(random)"
