#!/usr/bin/env bash
# Makes a folder with an emulated ARM64 Python and LiteRT, for `keras_qat.verify(..., kernels="arm64")`.
#
#   tools/setup_arm64.sh [DIR]
#
# DIR is $KERAS_QAT_ARM64, else keras_qat/arm64 in the user's cache. DIR/python then runs Python programs on a
# Cortex-A76 under QEMU. Needs Debian or Ubuntu with Python 3.11 or newer, python3 with pip, the network, about 300 MB,
# and the right to install the package qemu-user if it is missing. Takes some minutes. LITERT is the version of
# ai-edge-litert, whose rules the target "litert-arm64" has.
set -euo pipefail

dir=${1:-${KERAS_QAT_ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/keras_qat/arm64}}
litert=${LITERT:-2.3.0}
pip="${PYTHON:-python3} -m pip --quiet --quiet --disable-pip-version-check"

if ! command -v qemu-aarch64 >/dev/null; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq qemu-user
fi

if [ -e "$dir" ] && [ -n "$(ls -A "$dir")" ] && [ ! -e "$dir/.keras-qat-arm64" ]; then
  echo "$dir has other files. Name another folder, or one that does not exist." >&2
  exit 1
fi
rm -rf "$dir"
mkdir -p "$dir"/{lists/partial,debs,root/proc,wheels,site}
touch "$dir/.keras-qat-arm64"
dir=$(cd "$dir" && pwd)

# The system's own package lists stay as they are: these are for another architecture.
apt="apt-get -qq -oAPT::Architecture=arm64 -oAPT::Architectures=arm64 -oDir::State::Lists=$dir/lists"
apt="$apt -oDir::State::status=/dev/null"
$apt update
minor=$($apt -s install python3-minimal | grep -oE 'Inst python3\.[0-9]+-minimal' | grep -oE '3\.[0-9]+' | head -1)
(cd "$dir/debs" && $apt download "python$minor-minimal" "libpython$minor-minimal" "libpython$minor-stdlib" libc6 \
  libgcc-s1 libstdc++6 zlib1g libexpat1 libbz2-1.0 liblzma5 libffi8 libcrypt1 libuuid1)
for package in "$dir"/debs/*.deb; do dpkg -x "$package" "$dir/root"; done

platforms=(--platform manylinux2014_aarch64)
for glibc in 17 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
$pip download --no-deps --only-binary=:all: --python-version "$minor" --implementation cp "${platforms[@]}" \
  --dest "$dir/wheels" "ai-edge-litert==$litert" "numpy>=1.26,<2.3" flatbuffers typing_extensions tqdm \
  backports.strenum protobuf
for wheel in "$dir"/wheels/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$dir/site"; done
rm -rf "$dir"/{lists,debs,wheels}

# LiteRT looks the processor up in /proc/cpuinfo. It crashes with that of the host.
for core in 0 1; do
  cat <<CORE
processor	: $core
BogoMIPS	: 100.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0b
CPU revision	: 1

CORE
done >"$dir/root/proc/cpuinfo"

libraries=$dir/root/lib/aarch64-linux-gnu:$dir/root/usr/lib/aarch64-linux-gnu
cat >"$dir/python" <<RUN
#!/bin/sh
exec qemu-aarch64 -cpu cortex-a76 -L '$dir/root' -E PYTHONHOME='$dir/root/usr' -E PYTHONPATH='$dir/site' \\
  -E OPENBLAS_NUM_THREADS=1 -E LD_LIBRARY_PATH='$libraries' '$dir/root/usr/bin/python$minor' "\$@"
RUN
chmod +x "$dir/python"
# Compiles the modules once, which an emulator does slowly.
PYTHONDONTWRITEBYTECODE='' "$dir/python" -c 'import ai_edge_litert.interpreter, numpy, runpy'
echo "Ready: $dir/python"
