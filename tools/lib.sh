# shellcheck shell=bash
# Shared by tools/bootstrap, tools/run and tools/test; sourced, not run.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
me=$(basename -- "$0")

# Everything these scripts say goes to stderr: stdout belongs to the results.
say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# Compile jobs: one a core, but no more than memory allows (a file that includes torch takes up to 2 GB).
jobs() {
  local cores memory_kb by_memory
  cores=$(nproc)
  memory_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2>/dev/null)
  by_memory=$((${memory_kb:-2000000} / 2000000))
  ((by_memory >= 1)) || by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}

# configure PRESET: only where there is no build folder, or where a new build folder would come out differently.
configure() {
  local preset=$1 build=$root/build/$1 options=()
  if [[ -n ${Torch_ROOT:-} ]] && ! grep -qsxF "Torch_ROOT:PATH=$Torch_ROOT" "$build/CMakeCache.txt"; then
    options+=("-DTorch_ROOT=$Torch_ROOT")
  elif [[ -e $build/build.ninja && ! $root/CMakePresets.json -nt $build/build.ninja ]]; then
    return # ninja itself notices changes of the CMake files
  fi
  say "configuring build/$preset"
  # Names of what was found are noise; warnings and errors come on stderr.
  (cd -- "$root" && cmake --preset "$preset" "${options[@]}" --log-level=WARNING >/dev/null) ||
    die "CMake could not configure build/$preset (see above)"
  touch "$build/build.ninja" # CMake leaves it alone where nothing changed
}

# build PRESET TARGET..: silent where there is nothing to do.
build() {
  local folder=$root/build/$1
  shift
  if ninja -C "$folder" -n "$@" 2>/dev/null | grep -q '^ninja: no work to do'; then
    return
  fi
  ninja -C "$folder" -j "$(jobs)" "$@" >&2 || die "the build failed (see above)"
}
