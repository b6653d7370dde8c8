#!/usr/bin/env bash
# The main job of logstore on real data, explained step by step. `make demo` runs it; by hand,
# from the repository's folder and with logstore installed:
#
#   bash examples/demo.sh [DIR]     DIR: a new folder for the store (default: demo-data, made anew)
#
# LOGSTORE and PYTHON name the two programs, where they are not on the PATH.
set -euo pipefail
exec </dev/null

program=${LOGSTORE:-logstore}
python=${PYTHON:-python3}
access_log=examples/data/apache_access_6k.log
earthquakes=examples/data/earthquakes.json
store=${1:-demo-data}

if [ ! -r "$access_log" ]; then
    echo "demo: run this from the repository's folder ($access_log is not here)" >&2
    exit 2
fi
if [ "$store" = demo-data ]; then
    rm -rf demo-data
elif [ -e "$store" ]; then
    echo "demo: $store exists already; name a folder that does not" >&2
    exit 2
fi
export LOGSTORE_DIR=$store
tab=$'\t'
step_number=0

# The commands below are written as a user would type them.
logstore() { command "$program" "$@"; }

# What the next step does, in plain words.
step() {
    step_number=$((step_number + 1))
    printf '\n%d. %s\n' "$step_number" "$1"
}

# The command, as one would type it.
show() { printf '   $ %s\n' "$1"; }

# What came out.
came_out() { printf '   => %s\n' "$*"; }

indent() { sed 's/^/   | /'; }

bytes_of() { wc -c <"$1" | tr -d ' '; }

# The number of lines of standard input.
count() { wc -l | tr -d ' '; }

# Sums over the JSON lines of `logstore dump`; prints what the format string $1 asks for.
from_dump() {
    "$python" -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
batches = [line for line in lines if line["type"] == "batch"]
print(sys.argv[1].format(
    batches=len(batches),
    records=sum(batch["count"] for batch in batches),
    good=sum(bool(batch["crc_ok"]) for batch in batches),
    codec=", ".join(sorted({batch["codec"] for batch in batches})),
    middle=[batch["position"] + batch["size"] // 2 for batch in batches][len(batches) // 2],
))' "$1"
}

# GeoJSON to one line for each earthquake: its id, a tab, and the whole feature as JSON.
keyed_earthquakes() {
    "$python" -c '
import json, sys
for feature in json.load(open(sys.argv[1], encoding="utf-8"))["features"]:
    print(feature["id"], json.dumps(feature, separators=(",", ":")), sep="\t")' "$earthquakes"
}

echo "logstore keeps event logs in a folder, in Apache Kafka's own file format, with no server."
echo "This demo fills the folder $store/ with real data and looks at it from every side."

# ------------------------------------------------------------------------------------------------
step "Create a topic: a named log with one partition, which is one folder of files."
show "export LOGSTORE_DIR=$store"
show "logstore topic create access-log"
logstore topic create access-log | indent
came_out "the store $store/ holds: $(cd "$store/topics" && echo */)"

# ------------------------------------------------------------------------------------------------
lines=$(count <"$access_log")
step "Append a web server's log: $lines lines, each one a record, compressed with zstd."
show "logstore append access-log $access_log --compression zstd"
logstore append access-log "$access_log" --compression zstd 2>&1 | indent
partition=$store/topics/access-log-0
segment=$(ls "$partition"/*.log | head -n 1)
raw_size=$(bytes_of "$access_log")
segment_size=$(bytes_of "$segment")
came_out "$raw_size bytes of text became a segment file of $segment_size bytes" \
    "($((100 * segment_size / raw_size)) % of it)"

# ------------------------------------------------------------------------------------------------
step "Read everything back and compare it with the original, byte for byte."
show "logstore read access-log | cmp - $access_log"
logstore read access-log | cmp - "$access_log"
came_out "identical: $raw_size bytes went in, the same $raw_size bytes came out"

# ------------------------------------------------------------------------------------------------
step "Read the last three records with their offsets and times, as JSON."
show "logstore read access-log --offset -3 --json"
last_three=$(logstore read access-log --offset -3 --json)
cut -c 1-150 <<<"$last_three" | indent
came_out "$(count <<<"$last_three") records; the first offset of a log is 0," \
    "so the last of $lines is $((lines - 1)) (long lines are cut here)"

# ------------------------------------------------------------------------------------------------
step "Look inside the segment file: records lie in batches, each with a checksum of its own."
show "logstore dump $segment | head -n 6"
logstore dump "$segment" | sed -n 1,6p | cut -c 1-150 | indent
came_out "$(logstore dump "$segment" --json |
    from_dump '{records} records in {batches} batches ({codec}), {good} checksums right')"

# ------------------------------------------------------------------------------------------------
step "The same for programs: one JSON object a line, a batch and then its records."
show "logstore dump $segment --records --json | head -n 3"
logstore dump "$segment" --records --json | sed -n 1,3p | cut -c 1-150 | indent
came_out "$(logstore dump "$segment" --records --json | count) lines for the whole file:" \
    "one for each batch and one for each record"

# ------------------------------------------------------------------------------------------------
step "Append records with keys: each earthquake of one week under its id."
show "... | logstore append quakes - --key-separator \$'\\t'"
quake_count=$(keyed_earthquakes | count)
half=$((quake_count / 2))
keyed_earthquakes | sed -n "1,${half}p" |
    logstore append quakes - --key-separator "$tab" 2>&1 | indent
sleep 0.05
since=$("$python" -c 'import time; print(time.time_ns() // 1_000_000)')
keyed_earthquakes | sed -n "$((half + 1)),\$p" |
    logstore append quakes - --key-separator "$tab" 2>&1 | indent
came_out "$half earthquakes, and a moment later the other $((quake_count - half));" \
    "the topic was made by the first append"

# ------------------------------------------------------------------------------------------------
step "Read by time: only what was appended since that moment (milliseconds since 1970)."
show "logstore read quakes --since $since --max 3 --format '%o %k\\n'"
logstore read quakes --since "$since" --max 3 --format '%o %k\n' | indent
came_out "$(logstore read quakes --since "$since" | count) of $quake_count records are" \
    "that young; a topic is searched by time through the time index beside each segment"

# ------------------------------------------------------------------------------------------------
step "Read as a group: it goes on where it was, and takes nothing from anybody else."
show "logstore read quakes --group maps --max 2 --format '%o %k\\n'   (twice)"
logstore read quakes --group maps --max 2 --format '%o %k\n' | indent
logstore read quakes --group maps --max 2 --format '%o %k\n' | indent
came_out "the second run began behind the first one's last record"

# ------------------------------------------------------------------------------------------------
step "A work queue: messages are routed to it, each is delivered to one consumer, and then gone."
show "logstore exchange declare shop --type topic"
logstore exchange declare shop --type topic | indent
show "logstore queue declare payments"
logstore queue declare payments | indent
show "logstore queue bind payments shop 'order.*.due'"
logstore queue bind payments shop 'order.*.due' | indent
for order in 1 2 3; do
    show "logstore queue publish shop order.$order.due '{\"order\": $order}'"
    logstore queue publish shop "order.$order.due" "{\"order\": $order}" | indent
done
show "logstore queue get payments --count 2"
logstore queue get payments --count 2 | indent
show "logstore queue list"
logstore queue list | indent
came_out "two of three were taken and acknowledged; the third one waits"

# ------------------------------------------------------------------------------------------------
step "One event for many, work done once: an order service, three workers, one of them killed."
show "python examples/order_service.py"
"$python" examples/order_service.py | indent

# ------------------------------------------------------------------------------------------------
step "A work queue on a topic, with nothing copied: a share group, and its dead letters."
show "python examples/payments.py"
"$python" examples/payments.py | indent

# ------------------------------------------------------------------------------------------------
step "Request and reply, and messages by priority: a fraud check."
show "python examples/fraud_check.py"
"$python" examples/fraud_check.py | indent

# ------------------------------------------------------------------------------------------------
step "One log, several readers, and a replay for a question nobody had asked: activity events."
show "python examples/activity_events.py"
"$python" examples/activity_events.py | indent

# ------------------------------------------------------------------------------------------------
step "Replay the log into a copy, in whole batches that nobody opens, and compare the two."
show "logstore replay access-log --to topic:copy && logstore replay --diff access-log copy"
logstore replay access-log --to topic:copy 2>&1 | indent
logstore replay --diff access-log copy | indent
came_out "a replay may also keep the original pace (--speed 10x), filter (--where) and resume"

# ------------------------------------------------------------------------------------------------
step "Find the event that broke a shop's books, though at the end they look right again."
show "logstore replay shop --fold examples/shop.py:ledger --bisect 'min(state.balances) < 0'"
"$python" examples/shop.py --events | logstore append shop - --json 2>&1 | indent
logstore replay shop --fold examples/shop.py:ledger --bisect 'min(state.balances) < 0' --context 1 |
    indent
came_out "the same order was charged twice; --debug instead of --bisect steps through it," \
    "backwards too"

# ------------------------------------------------------------------------------------------------
step "Check the whole store: every batch, checksum, offset, timestamp and index entry."
show "logstore check $store"
logstore check "$store" | indent
came_out "nothing is damaged (a damaged store makes the command exit with 1)"

# ------------------------------------------------------------------------------------------------
step "Damage a copy: change one byte in the middle of a batch, and check again."
copy=$(mktemp -d "${TMPDIR:-/tmp}/logstore-demo.XXXXXX")
trap 'rm -rf "$copy"' EXIT
middle=$(logstore dump "$segment" --json | from_dump '{middle}')
cp -R "$partition" "$copy/access-log-0"
"$python" -c '
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2])); byte = file.read(1)[0]
    file.seek(int(sys.argv[2])); file.write(bytes([byte ^ 0xFF]))
' "$copy/access-log-0/$(basename "$segment")" "$middle"
show "logstore check COPY"
status=0
findings=$(logstore check "$copy/access-log-0" 2>&1) || status=$?
sed "s|$copy/||g" <<<"$findings" | cut -c 1-150 | indent
if [ "$status" -ne 1 ]; then
    echo "demo: the damage was not found (exit $status)" >&2
    exit 1
fi
came_out "found: exit $status, with the file and the position of the batch that holds the byte"

printf '\nThe store stays in %s/. To look around:\n\n' "$store"
printf '   export LOGSTORE_DIR=%s\n' "$store"
printf '   %s topic list\n' "$program"
printf '   %s --help\n' "$program"
