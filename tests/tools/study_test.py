#!/usr/bin/env python3
"""tools/study with budgets of seconds: marks are reached, a killed study goes on, and nothing is done twice.

usage: study_test.py SOURCE_DIR BINARY_DIR
"""

import csv
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE, BUILD = map(pathlib.Path, sys.argv[1:3])
STUDY = SOURCE / "tools/study"

CONFIG = """
name: {name}
stages:
  - {{use: source.synthetic, size: 32, draws: 64}}
  - {{use: batch, size: 8}}
  - {{use: train.dcgan, epochs: 100000, channels: {channels}, max_channels: 16, latent: 8, sample_every: 100000, save_every: 10}}
  - use: evaluate.quality
    every: 100000
    held_out: {{first: 1000, draws: 24}}
    n_fake: 24
    nearest: 0
run: {{device: cpu, precision: fp32}}
"""
SECONDS = (2, 4)


class Study(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"
        for name, channels in (("narrow", 4), ("wide", 8)):
            (self.folder / f"{name}.yaml").write_text(CONFIG.format(name=name, channels=channels))

    def command(self, *more, rungs=("narrow", "wide"), seeds="1"):
        rungs = ",".join(str(self.folder / f"{rung}.yaml") for rung in rungs)
        minutes = ",".join(str(second / 60) for second in SECONDS)
        return [sys.executable, STUDY, "--rungs", rungs, "--seeds", seeds, "--minutes", minutes, "--out", self.out, "--jobs", "1", "--no-plot",
                "--program", BUILD / "bin/gan-pipeline", *more]

    def run_study(self, *more, **what):
        return subprocess.run(self.command(*more, **what), capture_output=True, text=True, timeout=200)

    def rows(self):
        file = self.out / "results.csv"
        return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []

    def check_rows(self, rungs, seeds=(1,)):
        rows = self.rows()
        self.assertEqual(sorted((row["rung"], int(row["seed"]), round(60 * float(row["minutes"]), 2)) for row in rows),
                         sorted((rung, seed, second) for rung in rungs for seed in seeds for second in SECONDS))
        for row in rows:
            budget = 60 * float(row["minutes"])
            self.assertGreaterEqual(float(row["processor_seconds"]), budget)
            self.assertLess(float(row["processor_seconds"]), budget + 1.5)
            self.assertEqual(int(row["images"]), 8 * int(row["steps"]))
            self.assertGreater(float(row["fd"]), 0)
            self.assertEqual(row["precision"], "fp32")
            for name in ("floor", "kid", "precision_metric", "recall", "accuracy_real", "accuracy_held_out", "accuracy_fake", "loss_d", "loss_g"):
                float(row[name])
            self.assertEqual((self.out / "grids" / f"{row['rung']}_{row['seed']}_{row['minutes']}.png").read_bytes()[:4], b"\x89PNG")
        for rung in rungs:
            for seed in seeds:
                steps = [int(row["steps"]) for row in rows if (row["rung"], row["seed"]) == (rung, str(seed))]
                self.assertLess(steps[0], steps[1])
                # Each step is there once and none is missing.
                lines = [json.loads(line) for line in next((self.out / "runs" / f"{rung}_{seed}").glob("0*/metrics.jsonl")).read_text().splitlines()]
                self.assertEqual([line["step"] for line in lines], list(range(1, steps[1] + 1)))

    def test_reaches_its_marks_and_does_nothing_twice(self):
        done = self.run_study()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_rows(("narrow", "wide"))
        table = (self.out / "table.md").read_text()
        self.assertEqual(table.count("| narrow | 1 | "), 2)
        self.assertIn("| 1.00 | 1.00 |", table)
        before = (self.out / "results.csv").read_text(), sorted((self.out / "logs").iterdir()), (self.out / "logs/wide_1.txt").read_text()
        again = self.run_study()
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(before, ((self.out / "results.csv").read_text(), sorted((self.out / "logs").iterdir()), (self.out / "logs/wide_1.txt").read_text()))
        (self.out / "table.md").unlink()
        self.assertEqual(self.run_study("--report").returncode, 0)
        self.assertEqual((self.out / "table.md").read_text(), table)

    def test_stopped_and_killed_it_goes_on(self):
        def lines_of_metrics():
            return sum(len(file.read_text().splitlines()) for file in self.out.glob("runs/narrow_1/0*/metrics.jsonl"))

        steps_before = 0
        for number, (end, code) in enumerate(((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL))):
            with open(self.folder / "stderr", "w") as err:
                study = subprocess.Popen(self.command(rungs=["narrow"]), stdout=subprocess.DEVNULL, stderr=err)
            deadline = time.monotonic() + 60
            # In the middle of training; the last time after the first mark.
            while study.poll() is None and time.monotonic() < deadline:
                if lines_of_metrics() >= steps_before + 15 and (number < 2 or self.rows()):
                    break
                time.sleep(0.02)
            study.send_signal(end)
            self.assertEqual(study.wait(60), code, (self.folder / "stderr").read_text())
            if end == signal.SIGKILL:
                time.sleep(1)  # its program goes with it
                steps = lines_of_metrics()
                time.sleep(1)
                self.assertEqual(lines_of_metrics(), steps)
            steps_before = lines_of_metrics()
            self.assertLess(len(self.rows()), 2)
        self.assertEqual(len(self.rows()), 1)
        with open(self.out / "results.csv", "a") as file:
            file.write("narrow,1,0.0")  # as a kill may leave it
        done = self.run_study(rungs=["narrow"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_rows(["narrow"])

    def test_a_training_that_ends_too_early_is_told_and_others_go_on(self):
        short = self.folder / "narrow.yaml"
        short.write_text(short.read_text().replace("epochs: 100000", "epochs: 1"))
        done = self.run_study()
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn("narrow_1: the training ended by itself at step 8 with exit code 0", done.stderr)
        self.check_rows(["wide"])

    def test_an_overlay_changes_every_rung(self):
        overlay = self.folder / "overlay.yaml"
        overlay.write_text("stages:\n  - {change: batch, size: 4}\n")
        done = self.run_study("--overlay", overlay, rungs=["narrow"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(row["rung"], int(row["images"]) // int(row["steps"])) for row in self.rows()], [("narrow", 4), ("narrow", 4)])

    def test_a_setting_is_of_its_rung_alone(self):
        done = self.run_study("--set", "narrow:stages.batch.size=4")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({(row["rung"], int(row["images"]) // int(row["steps"])) for row in self.rows()}, {("narrow", 4), ("wide", 8)})

    def test_wrong_arguments_are_told(self):
        for arguments, message in ((["--rungs", "none"], "--rungs: there is no "), (["--jobs", "0"], "--jobs 0: expected 1 to "),
                                   (["--minutes", "0"], "--minutes: expected more than 0"), (["--data", self.folder / "none"], "is no folder"),
                                   (["--overlay", self.folder / "none"], "is no file"), (["--set", "narrow:size"], "narrow:size: expected RUNG:KEY=VALUE"),
                                   (["--set", "none:seed=2"], "none is none of the rungs")):
            done = self.run_study(*arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(message, done.stderr)
        (self.folder / "narrow.yaml").write_text("name: x\nstages: []\n")
        done = self.run_study()
        self.assertEqual(done.returncode, 1)
        self.assertIn("narrow.yaml", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
