#!/usr/bin/env bash
# The steps of the Dockerfile, which CI runs without Docker: builds the wheel and installs it with
# the locked dependencies into a virtual environment of its own, then asks it one question.
#   docker/build.sh TARGET_FOLDER
set -euo pipefail
target="${1:?name the folder of the virtual environment}"
source="$(cd "$(dirname "$0")/.." && pwd)"
"${PYTHON:-python3}" -m venv --clear "$target"
target="$(cd "$target" && pwd)"
pip=("$target/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --no-cache-dir --constraint "$source/requirements.lock" "$source"
# What runs does not need what installed it.
cd /
"$target/bin/sizewright" --version
"$target/bin/sizewright" recommend --no-local --top 1 -o json \
  "$source/examples/llama3-8b-sft.yaml" >/dev/null
