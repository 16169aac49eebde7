#!/bin/sh
# Runs the federation's etcd in a container for as long as the registry keeps its configuration file there, and
# anew when the file has changed. Beside it it writes which etcd that is. Usage: federation-etcd.sh FILE
set -u
umask 077
config=${1:?the configuration file}
pid=

stop() {
    [ -n "$pid" ] && kill -TERM "$pid" 2>/dev/null
    wait
    exit 0
}
trap stop TERM INT

version_file=$(dirname "$config")/etcd-version
etcd --version >"$version_file.new" && mv "$version_file.new" "$version_file"

# In the background, so that a signal is seen at once.
pause() {
    sleep 1 &
    wait $!
}
content() { cksum "$config" 2>/dev/null || echo none; }
unchanged() { [ "$(content)" = "$seen" ]; }

run() {
    etcd "--config-file=$config" &
    pid=$!
    while unchanged && kill -0 "$pid" 2>/dev/null; do pause; done
    unchanged || kill -TERM "$pid" 2>/dev/null
    wait "$pid"
    code=$?
    pid=
}

while :; do
    seen=$(content)
    if [ "$seen" != none ]; then
        run
        # It ends with 0 when it was taken off: then only another configuration brings it back.
        if [ "$code" -eq 0 ]; then
            while unchanged; do pause; done
        fi
    fi
    pause
done
