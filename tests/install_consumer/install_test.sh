#!/usr/bin/env bash
# Installs this build, moves the result elsewhere, and builds on it as another project would.
# usage: install_test.sh BUILD_DIR SOURCE_DIR
set -euo pipefail
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}
# expect CODE TEXT COMMAND..: its exit code, and a text somewhere in what it says
expect() {
  local code=$1 text=$2 status=0
  shift 2
  "$@" >"$work/said" 2>&1 || status=$?
  [[ $status == "$code" ]] || { cat "$work/said" >&2 && fail "$* ended with $status, not $code"; }
  grep -qF -- "$text" "$work/said" || { cat "$work/said" >&2 && fail "$* did not say: $text"; }
}
configure_and_build() { # FOLDER [cmake arguments]
  local folder=$1
  shift
  cmake -S "$folder" -B "$folder/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" "$@" >"$work/log" 2>&1 &&
    cmake --build "$folder/build" >>"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "could not build $folder"; }
}

cmake --install "$build" --prefix "$work/installed" >/dev/null
prefix="$work/moved here"
mv "$work/installed" "$prefix"
bin=$prefix/bin

# --- The tree by itself
expect 0 augment.flip "$bin/gan-pipeline" inspect augment.flip
expect 0 image.resize "$bin/gan-pipeline" inspect image.resize
expect 0 valid "$bin/gan-pipeline" validate "$prefix/share/gan-pipeline/configs/prep_aircraft.yaml"
for file in "$bin/gan-pipeline" "$prefix"/lib*/libgp_pipeline.so "$prefix"/lib*/gan-pipeline/*/*.so; do
  [[ -e $file ]] || continue
  ! readelf -d "$file" | grep -E 'R(UN)?PATH' | grep -qF "$build" || fail "$file looks for libraries in the build folder"
done

# --- An outside project
cp -r "$source/tests/install_consumer" "$work/consumer"
# Every stage name can be loaded once; the README's plugin gets another one beside the shipped flip.
sed 's/"augment\.flip"/"augment.readme_flip"/' "$source/plugins/augment_flip.cpp" >"$work/consumer/readme_plugin.cpp"
configure_and_build "$work/consumer" -DREADME_PLUGIN=readme_plugin.cpp
expect 0 "augment.readme_flip" "$bin/gan-pipeline" inspect --plugin "$work/consumer/build/readme_plugin.so"
expect 0 "48x32, changed" "$bin/gan-pipeline" inspect --plugin "$work/consumer/build/augment_threshold.so"
expect 0 "rejected 1, dropped 1" "$bin/gan-pipeline" run "$work/consumer/stripes.yaml" --out "$work/runs"
grep -qF "stripe-13, augment.threshold: begins with 13, which brings bad luck" "$work/said" ||
  fail "the reject has not the plugin's text"
ls "$work/consumer/build/out" | sort >"$work/list"
[[ $(wc -l <"$work/list") == 18 ]] || fail "expected 18 pictures of 20: $(tr '\n' ' ' <"$work/list")"
# Stripe 9 is below the level, so its first pixel is black; 12's is white.
first_pixel() { tail -c $((8 * 8 * 3)) "$work/consumer/build/out/stripe-$1.ppm" | head -c 3 | od -An -tu1 | tr -s ' '; }
[[ $(first_pixel 9) == " 0 0 0" && $(first_pixel 12) == " 255 255 255" ]] || fail "the plugin was not used"

# --- A module that was built with other headers
sed -i 's/headers [0-9a-f]*/headers 0123456789abcdef/' "$prefix/include/gan-pipeline/pipeline/build_id.hpp"
configure_and_build "$work/consumer" -DREADME_PLUGIN=readme_plugin.cpp
expect 4 "headers 0123456789abcdef" "$bin/gan-pipeline" validate "$work/consumer/stripes.yaml"
grep -qF "$("$bin/gan-pipeline" version)" "$work/said" || fail "the host's own build id is missing"

# --- A new plugin
new=$bin/gan-pipeline-new-plugin
expect 2 "can't name a plugin" "$new" Invert "$work/x"
expect 2 "is not empty" "$new" augment_invert "$work/consumer"
expect 2 "usage:" "$new" augment_invert
expect 0 "$work/invert" "$new" augment_invert "$work/invert"
configure_and_build "$work/invert"
expect 0 "100% tests passed" ctest --test-dir "$work/invert/build"
# Its test notices a plugin that does something else.
sed -i 's/255 - in.row/254 - in.row/' "$work/invert/augment_invert.cpp"
configure_and_build "$work/invert"
expect 8 "augment_invert_test" ctest --test-dir "$work/invert/build"

echo "passed"
