"""The shell scripts of a pod: what runs beside the payload, in the helper's image.

They need sh, mkdir, sleep and tail, and for carrying files head, mv, rm and tar: any busybox has
them, and so has any Debian. All containers of a pod see one another's processes, under one user.
A process is the payload's unless it is the pod's first one, the keeper, or a child of the keeper.
"""

from __future__ import annotations

ROOT = "/fabric"
STATE = f"{ROOT}/.fabric"

STAGING = f"""\
mkdir -p {STATE} {ROOT}/task {ROOT}/input {ROOT}/output {ROOT}/checkpoints
until [ -z "$1" ] || [ -e {STATE}/staged ]; do sleep 0.2; done
"""
"""Makes the folders; with an argument it waits for what the worker brings."""

_PARTING_S = 10
"""How long a keeper that is told to end waits for the worker, within the pod's grace."""

_OTHERS = """\
others() {
    found=1 wanted=$1 ready=
    for at in /proc/[0-9]*; do
        pid=${at#/proc/}
        [ "$pid" != 1 ] && [ "$pid" != $$ ] && [ "$pid" != "$keeper" ] || continue
        { read -r said < "$at/stat"; } 2> /dev/null || continue
        set -- ${said##*) }
        [ "$1" != Z ] && [ "$2" != $$ ] && [ "$2" != "$keeper" ] || continue
        found=0
        case $1 in T | t) ;; *) ready=no ;; esac
        [ "$wanted" = 0 ] || kill "-$wanted" "$pid" 2> /dev/null
    done
    return $found
}
"""
"""``others SIGNAL``: signal the payload's processes, say whether there are any, and in ``ready``
whether one of them does not stand still. 0 is no signal."""

KEEPING = f"""\
grace=$1 keep=$2 wall=$3 keeper=$$ stop= until= begun= last= now=
{_OTHERS}
trap 'stop=yes' TERM
echo $$ > {STATE}/keeper
: >> {ROOT}/telemetry.jsonl
tail -c +1 -F {ROOT}/telemetry.jsonl 2> /dev/null &
until [ -e {STATE}/done ]; do
    before=$now
    read -r now rest < /proc/uptime
    now=${{now%.*}}
    last=${{last:-$now}}
    if others 0; then
        begun=${{begun:-$now}} last=$now
        [ ! -e {STATE}/paused ] || begun=$((begun + now - ${{before:-$now}}))
        if [ -n "$until" ]; then
            [ "$now" -lt "$until" ] || others KILL
        elif [ -n "$stop" ]; then
            others CONT
            until=$((now + grace))
        else
            asked=
            [ ! -e {STATE}/stop ] || {{ read -r grace < {STATE}/stop; asked=yes; }}
            [ -z "$wall" ] || [ $((now - begun)) -lt "$wall" ] || asked=timeout
            [ "$asked" != timeout ] || : > {STATE}/timeout
            [ -z "$asked" ] || {{ others TERM; others CONT; until=$((now + grace)); }}
        fi
    elif [ -n "$stop" ]; then
        [ -n "$begun" ] && : > {STATE}/parted && [ $((now - last)) -lt {_PARTING_S} ] || break
    fi
    [ $((now - last)) -lt "$keep" ] || break
    sleep 0.2 &
    wait $!
done
"""
"""Arguments: grace, how long to stay after the payload's end, wall limit; in whole seconds.

Ends the payload for its wall limit, or where the worker asks; passes telemetry on as its log;
stays until the worker has what the payload wrote. A SIGTERM means that the pod is taken away:
Kubernetes has told the payload the same, so that only its grace is held, and the worker has a
moment to carry away what the payload has saved.
"""

STOP = f'echo "$1" > {STATE}/stop.part && mv {STATE}/stop.part {STATE}/stop'
"""Asks the keeper to end the payload within so many seconds."""

RELEASE = f": > {STATE}/done"

PARTED = f"[ -e {STATE}/parted ]"
"""Says whether the payload of a pod that is taken away has ended."""

PAUSE = f"""\
read -r keeper < {STATE}/keeper || exit
{_OTHERS}
: > {STATE}/paused
tries=0
while [ $tries -lt 50 ]; do
    others STOP || exit 3
    others 0
    [ -n "$ready" ] || exit 0
    tries=$((tries + 1))
    sleep 0.1
done
exit 4
"""
"""Lets every process of the payload stand still; 3 where there is none, 4 where one runs on."""

RESUME = f"""\
read -r keeper < {STATE}/keeper || exit
{_OTHERS}
rm -f {STATE}/paused
others CONT
exit 0
"""

UNPACK = f"""\
[ -e {STATE}/staged ] && exit
head -c "$1" | tar -xf - -C {ROOT} && : > {STATE}/staged
"""
"""Takes so many bytes of a tar stream, once; the payload begins then."""

PACK = f"cd {ROOT} && exec tar -cf - output checkpoints telemetry.jsonl .fabric"
"""Gives all that the payload wrote, but for its two logs."""
