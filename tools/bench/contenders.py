"""What the benchmarks against peers have in common: programs that are measured in turn, and the tables of what came out."""

import contextlib
import json
import os
import pathlib
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "tools/bench"
BUILD = ROOT / "build/release"
TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def cpu_seconds_of_tree(root):
    """Processor time of a process and all below it, those included that have ended and were waited for."""
    parents, times = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        parents[int(entry)] = int(fields[1])
        times[int(entry)] = sum(map(int, fields[11:15]))
    total = 0
    for process in times:
        above = process
        while above not in (0, root):
            above = parents.get(above, 0)
        total += times[process] if above == root else 0
    return total / TICKS


class Contender:
    """A program that is measured: `measure` returns images, seconds, cpu_seconds."""

    def __init__(self, name, command, note=""):
        self.name, self.command, self.note = name, [str(word) for word in command], note
        self.rounds = []

    def start(self, log):
        self.log = log

    def stop(self):
        pass

    def failed(self, exit_code):
        sys.exit(f"bench: {self.name} ended with exit code {exit_code}; what it said is in {self.log.name}. Its command: {shlex.join(self.command)}")


class Ours(Contender):
    """data_bench, which warms up and measures by itself."""

    def measure(self):
        done = subprocess.run(self.command, stdout=subprocess.PIPE, stderr=self.log)
        if done.returncode:
            self.failed(done.returncode)
        return json.loads(done.stdout)


class Peer(Contender):
    """A Python program that stays, and measures once for each line that it is sent."""

    def start(self, log):
        super().start(log)
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.failed(self.process.wait())
        return json.loads(line)

    def measure(self):
        before = cpu_seconds_of_tree(self.process.pid)
        with contextlib.suppress(BrokenPipeError):  # where it has ended, answer() says so
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        result = self.answer()
        result["cpu_seconds"] = cpu_seconds_of_tree(self.process.pid) - before
        return result

    def stop(self):
        self.process.communicate(timeout=60)


class Builder(Contender):
    """A program that writes `images` images and ends; all of it counts, its start too."""

    def __init__(self, name, command, images, out, note=""):
        super().__init__(name, command, note)
        self.images, self.out = images, out

    def start(self, log):
        super().start(log)
        self.measure()  # warms up

    def measure(self):
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        start = time.perf_counter()
        process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            self.failed(process.returncode)
        return {"images": self.images, "seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def alternate(contenders, rounds, log):
    """Measures each in turn, `rounds` times; every other round backwards."""
    try:
        for contender in contenders:
            say(f"  {contender.name}: starting")
            contender.start(log)
        for number in range(rounds):
            say(f"  round {number + 1} of {rounds}")
            for contender in contenders[:: -1 if number % 2 else 1]:
                contender.rounds.append(contender.measure())
    finally:
        for contender in contenders:
            if not isinstance(contender, Peer) or hasattr(contender, "process"):
                contender.stop()


def rate(result):
    return result["images"] / result["seconds"]


def cpu_ms(result):
    return 1000 * result["cpu_seconds"] / result["images"]


def median_ratio(ours, peer, value):
    return statistics.median(value(a) / value(b) for a, b in zip(ours.rounds, peer.rounds))


def figure(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(title, contenders, unit="image"):
    """The first contender is ours."""
    ours = contenders[0]
    lines = [f"**{title}**", "", f"| | {unit}s/s, median (lowest to highest) | processor time {'an' if unit[0] in 'aeiou' else 'a'} {unit} | gan-pipeline: {unit}s/s | gan-pipeline: {unit}s a processor second | what differs |",
             "| --- | --: | --: | --: | --: | --- |"]
    for contender in contenders:
        rates = [rate(result) for result in contender.rounds]
        ms = statistics.median(map(cpu_ms, contender.rounds))
        ratios = "| | " if contender is ours else f"| {median_ratio(ours, contender, rate):.2f}x | {1 / median_ratio(ours, contender, cpu_ms):.2f}x "
        lines.append(f"| {contender.name} | {figure(statistics.median(rates))} ({figure(min(rates))} to {figure(max(rates))}) | {ms:,.3f} ms "
                     f"{ratios}| {contender.note} |")
    return "\n".join(lines) + "\n"


def commands(contenders, work, python):
    def shown(contender):
        text = shlex.join(contender.command)
        for what, name in ((str(work), "WORK"), (python, "python"), (str(ROOT) + "/", "")):
            text = text.replace(what, name)
        return text

    return "\n".join(f"- {contender.name}: `{shown(contender)}`" for contender in contenders) + "\n"


def set_up(*targets):
    """Builds and installs what is missing; returns the peers' Python."""
    setup = subprocess.run([BENCH / "setup", *targets], stdout=subprocess.PIPE, text=True)
    if setup.returncode:
        sys.exit(setup.returncode)
    return setup.stdout.strip()


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return {"cpu": model, "processors": len(os.sched_getaffinity(0)), "system": f"{system}, Linux {platform.release()}", "python": platform.python_version(),
            "load_before": os.getloadavg()[0]}


def versions(python, packages):
    """Of what is measured: ours by its commit, the peers' by their packages."""
    described = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    code = "import importlib.metadata as m, json, sys; print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
    found = subprocess.run([python, "-c", code, *packages], stdout=subprocess.PIPE, check=True)
    return {"gan-pipeline": described.stdout.strip() or "unknown", **json.loads(found.stdout)}


def keep(record, file):
    partial = file.with_suffix(".tmp")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(file)
