#!/usr/bin/env python3
"""The programs of tools/bench do what its scripts read from them, and the scripts are Python. No timing.

usage: data_bench_test.py SOURCE_DIR BINARY_DIR
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD = map(pathlib.Path, sys.argv[1:3])
BENCH = SOURCE / "tools/bench"


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100)


class DataBench(unittest.TestCase):
    CONFIG = """
name: bench
plugins: [augment_flip]
stages:
  - {use: source.synthetic, size: 16, draws: 70}
  - {use: augment.flip, p: 0.5}
  - {use: batch, size: 32}
  - {use: train.nothing}
"""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.config = self.folder / "bench.yaml"
        self.config.write_text(self.CONFIG)

    def bench(self, *arguments):
        return run(BUILD / "bench/data_bench", "run", self.config, *arguments)

    def test_counts_the_images_of_full_batches(self):
        done = self.bench("--threads", 2, "--epochs", 3, "--png", self.folder / "batch.png")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual((result["images"], result["batch_size"], result["threads"]), (3 * 64, 32, 2))
        self.assertAlmostEqual(result["images_per_second"] * result["seconds"], result["images"], places=3)
        self.assertGreater(result["cpu_seconds"], 0)
        self.assertEqual((self.folder / "batch.png").read_bytes()[:4], b"\x89PNG")

    def test_too_few_images_are_an_error(self):
        done = self.bench("--set", "stages.source.synthetic.draws=31")
        self.assertEqual(done.returncode, 3)
        self.assertIn("fewer than one batch of 32", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_shipped_configurations_are_valid(self):
        for name, end in (("jpeg", "source.folder"), ("shards", "source.shards")):
            done = run(BUILD / "bench/data_bench", "run", BENCH / f"{name}.yaml", "--set", f"stages.{end}.root={self.folder}/none")
            self.assertEqual(done.returncode, 3, done.stderr)  # all is right but the data
            self.assertIn(f"{self.folder}/none", done.stderr)


class EngineBench(unittest.TestCase):
    def test_measures_pure_and_serial_stages(self):
        done = run(BUILD / "bench/engine_bench", "run", "--samples", 4000)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual([(one["stages"], one["threads"], one["samples"]) for one in result["results"]],
                         [("pure", 1, 4000), ("pure", 2, 4000), ("serial", 1, 4000), ("serial", 2, 4000)])
        self.assertIn("hop_ns", result)


class Scripts(unittest.TestCase):
    def test_compile(self):
        scripts = [BENCH / "data", BENCH / "evaluation", BENCH / "trainer", SOURCE / "tools/check_fid_parity", *BENCH.glob("*.py"), *BENCH.glob("peers/*.py")]
        self.assertGreater(len(scripts), 5)
        for script in scripts:
            compile(script.read_text(), script, "exec")

    def test_wrong_arguments_are_told_before_anything_is_installed(self):
        for script, arguments, message in (
            (BENCH / "data", ["--rows", "jpg"], "jpg: expected some of jpeg,decoded,prep,engine"),
            (BENCH / "data", ["--count", "100"], "expected a multiple of 256"),
            (BENCH / "evaluation", ["--rows", "fid"], "fid: expected some of features,distance,command"),
            (BENCH / "evaluation", ["--count", "1"], "2 or more for --count"),
            (BENCH / "trainer", ["--precisions", "fp16"], "--precisions: expected some of bf16,fp32"),
            (SOURCE / "tools/check_fid_parity", ["--protocols", "legacy"], "legacy: expected some of legacy_pytorch,clean"),
            (SOURCE / "tools/check_fid_parity", [self.id()], "1 folders: expected two, or none"),
        ):
            done = run(sys.executable, script, *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(message, done.stderr)

    def test_setup_has_help(self):
        done = run("bash", BENCH / "setup", "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("usage: tools/bench/setup", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
