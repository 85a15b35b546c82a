#!/bin/sh
# Runs wherever there are /bin/sh and python3: as a process, in a container, in a batch job.
set -eu
python3 analyse.py "$FABRIC_INPUT_DIR/measurements.bin" "$FABRIC_OUTPUT_DIR"
echo "wrote $(ls "$FABRIC_OUTPUT_DIR" | tr '\n' ' ')"
