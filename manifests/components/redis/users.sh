#!/bin/sh
# Writes the ACL file of Redis: contract/acl/users.acl with digests in place of its placeholders, and the users whose
# password is known. Runs in the image of Redis, before it. No password is written, printed or an argument of a program.
set -eu

passwords=${1:-/etc/circuitbreaker/passwords}
template=${2:-/etc/circuitbreaker/acl/users.acl}
target=${3:-/run/redis/users.acl}

password() { # of a file, without the newline that an editor leaves; printf is the shell's own
    [ -r "$1" ] && printf '%s' "$(cat "$1")"
}

digest() {
    sum=$(password "$1" | sha256sum)
    printf '%s' "${sum%% *}"
}

user() { # beginning of its line in the template, file of its password, its namespace
    line=$(grep "^user $1 " "$template") || {
        echo "the ACL file of this version has no user $1" >&2
        exit 1
    }
    printf '%s\n' "$line" | sed -e "s/>[A-Z]*_PASSWORD/#$(digest "$2")/" -e "s/NAMESPACE/${3:-}/g"
}

if [ -z "$(password "$passwords/operator")" ]; then
    echo "there is no password for the operator. Make the Secret once; this pod sees it within two minutes:" >&2
    echo "  kubectl create secret generic circuitbreaker-redis --namespace circuitbreaker-system \\" >&2
    echo "    --from-literal=operator=\"\$(openssl rand -hex 32)\"" >&2
    exit 1
fi

umask 077
{
    # Off: nobody can be it. It keeps its rights, since Redis reads its append-only file as this user, and would leave out
    # every transaction in it.
    echo 'user default off ~* &* +@all'
    # For the kubelet, which asks whether Redis answers: this is all that it may.
    echo 'user probe reset on nopass +ping'
    user circuitbreaker-operator "$passwords/operator"
    if [ -n "$(password "$passwords/viewer")" ]; then user circuitbreaker-viewer "$passwords/viewer"; fi
    for file in "$passwords"/app-*; do
        [ -e "$file" ] || continue
        namespace=${file##*/app-}
        case $namespace in
        '' | *[!a-z0-9-]* | -* | *-)
            echo "the key app-$namespace of the Secret names no namespace" >&2
            exit 1
            ;;
        esac
        if [ -z "$(password "$file")" ]; then
            echo "the key app-$namespace of the Secret is empty" >&2
            exit 1
        fi
        user app-NAMESPACE "$file" "$namespace"
    done
} >"$target.new"
mv "$target.new" "$target"
echo "users: $(cut -d ' ' -f 2 "$target" | tr '\n' ' ')"
