"""What ``temporal-fabric init`` writes: a commented request and a commented fabric.toml."""

from __future__ import annotations

REQUEST = """\
# An experiment: what to run, not where. Check it with
#   temporal-fabric validate request.yaml
# and run it with
#   temporal-fabric submit --follow request.yaml
#
# The same id and body is the same experiment, however often it is submitted;
# the same id with another body is refused. Without an id each submit is a new one.
id: my-first-run
name: my first run
priority: 5                     # 1 to 10, 10 most urgent
# tags: [tutorial]

requirements:
  resources:
    - {type: cpu, cores: 1}
  #   - {type: memory, size_gb: 2}
  # constraints:                # over the labels of a backend, in CEL
  #   - "location == 'here'"

payload:
  process:
    command:
      - /bin/sh
      - -c
      - echo "epoch $FABRIC_EPOCH on $(uname -n)"; echo 42 > "$FABRIC_OUTPUT_DIR/answer.txt"
    outputs:                    # must exist at the end, or the run FAILED
      - source_path: answer.txt
    # env: {SEED: "7"}

# limits:
#   wall_s: 3600                # then SIGTERM, grace_s, SIGKILL
#   grace_s: 10
# retry:
#   max_attempts: 3
#   initial_interval_s: 5
#   backoff: 2
#   on: [EXIT_CODE, SIGNAL, LOST]
"""

CONFIG = """\
# Settings of temporal-fabric. A flag wins over FABRIC_... variables, they win over
# ./fabric.toml, and that wins over fabric.toml in FABRIC_HOME.
# Connection settings are Temporal's own: TEMPORAL_ADDRESS, profiles in temporal.toml.

# Where capsules and request records live for good; FABRIC_HOME by default.
# store = "file:///srv/fabric"

# pools = ["default"]

[backends.local]
kind = "local"
# slots = 4                     # attempts at once; one per CPU core by default
# labels = { location = "here" }
"""
