#!/usr/bin/env python3
"""Tests of tools/convert_weights.py. Fixtures: make_convert_weights_fixtures.py."""

import hashlib
import importlib.util
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "tools" / "convert_weights.py"
FIXTURES = HERE / "fixtures"

sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("convert_weights", SCRIPT)
convert_weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert_weights)


def read_safetensors(path):
    """(metadata, {name: [dtype, shape, hexadecimal bytes]}), checking what the format demands of a file."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert (8 + length) % 8 == 0 and data[8:9] == b"{"
    header = json.loads(data[8 : 8 + length])
    metadata, body = header.pop("__metadata__"), data[8 + length :]
    end, tensors = 0, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        assert begin == end, f"a hole or an overlap before {name}"
        end = stop
        tensors[name] = [entry["dtype"], entry["shape"], body[begin:stop].hex()]
    assert end == len(body)
    return metadata, tensors


class Reduce:
    """Pickles as a call: what hostile files are made of."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def legacy(payload, keys=b"", data=b""):
    """A file in the older format whose third object is the pickle `payload`."""
    head = [convert_weights.LEGACY_MAGIC, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in head) + payload + (keys or pickle.dumps([], 2)) + data


def archive(payload, records=(), byteorder=b"little"):
    """A zip archive as torch.save writes it, around the pickle `payload`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", payload)
        file.writestr("archive/byteorder", byteorder)
        for key, data in records:
            file.writestr(f"archive/data/{key}", data)
    return out.getvalue()


def tensor_pickle(offset=b"K\x00", size=b"K\x02\x85", stride=b"K\x01\x85", numel=b"K\x02", storage=b"ctorch\nFloatStorage\n"):
    """The pickle of {"w": a tensor on storage '0'}, every number of it free to be wrong."""
    pid = b"(X\x07\x00\x00\x00storage" + storage + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + numel + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + offset + size + stride + b"\x89}tR"
    return b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."


class ConvertTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.target = self.folder / "out.safetensors"

    def convert(self, source, key=""):
        if isinstance(source, bytes):
            path = self.folder / "in.pth"
            path.write_bytes(source)
            source = path
        return convert_weights.convert(str(source), str(self.target), key)

    def assert_refused(self, source, pattern):
        with self.assertRaisesRegex(convert_weights.Refused, pattern):
            self.convert(source)
        self.assertFalse(self.target.exists())

    def test_both_formats_give_pytorchs_contiguous_values(self):
        expected = json.loads((FIXTURES / "expected.json").read_text())
        self.assertGreater(len(expected), 25)
        for name in ("zip.pth", "legacy.pth"):
            with self.subTest(name):
                count, size, digest = self.convert(FIXTURES / name)
                metadata, tensors = read_safetensors(self.target)
                self.assertEqual(tensors, expected)
                self.assertEqual(count, len(expected))
                self.assertEqual(size, self.target.stat().st_size)
                self.assertEqual(digest, hashlib.sha256(self.target.read_bytes()).hexdigest())
                self.assertEqual(metadata["source"], name)
                self.assertEqual(metadata["source_sha256"], hashlib.sha256((FIXTURES / name).read_bytes()).hexdigest())

    def test_same_input_gives_same_bytes_and_leaves_no_other_file(self):
        self.convert(FIXTURES / "zip.pth")
        first = self.target.read_bytes()
        self.convert(FIXTURES / "zip.pth")
        self.assertEqual(self.target.read_bytes(), first)
        self.assertEqual([p.name for p in self.folder.iterdir()], [self.target.name])

    def test_unsigned_and_8_bit_float_types(self):
        self.convert(FIXTURES / "unsigned.pth")
        self.assertEqual(
            read_safetensors(self.target)[1],
            {
                "u16": ["U16", [2], "0100ffff"],
                "u32": ["U32", [2], "01000000ffffffff"],
                "u64": ["U64", [2], "01000000000000000000000000000080"],
                "f8": ["F8_E4M3", [2], "30c0"],
            },
        )

    def test_key_chooses_a_part_of_a_checkpoint(self):
        self.assert_refused(FIXTURES / "checkpoint.pth", "'epoch' is no tensor but of type 'int'.*--key")
        self.convert(FIXTURES / "checkpoint.pth", "state_dict")
        self.assertEqual(read_safetensors(self.target)[1], {"weight": ["F32", [2], "0000803f0000803f"]})
        with self.assertRaisesRegex(convert_weights.Refused, "'model' is not there; found epoch, state_dict"):
            self.convert(FIXTURES / "checkpoint.pth", "model")

    def test_hostile_pickles_are_refused_and_nothing_of_them_runs(self):
        proof = self.folder / "hostile code ran"
        command = f"touch '{proof}'"
        calls = [
            pickle.dumps(Reduce(os.system, command), 2),
            pickle.dumps(Reduce(os.system, command), 4),
            pickle.dumps({"w": Reduce(eval, f"open({str(proof)!r}, 'w')")}, 2),
            pickle.dumps({"w": Reduce(subprocess.run, ["touch", str(proof)])}, 4),
            b"(S\"" + command.encode() + b"\"\nios\nsystem\n.",  # protocol 0's INST
            # protocol 4 resolves dotted names: from an allowed function to the module's globals
            b"\x80\x04\x8c\x0ctorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
            b"\x80\x04\x8c\x05torch\x8c\x16FloatStorage.__class__\x93.",
        ]
        for i, payload in enumerate(calls):
            for make in (legacy, archive):
                with self.subTest(i, format=make.__name__):
                    self.assert_refused(make(payload), "the pickle wants to call .* Nothing of it was run")
                    self.assertFalse(proof.exists())
        for payload in calls[:4]:  # in place of the header
            self.assert_refused(payload, "the pickle wants to call")
            self.assertFalse(proof.exists())
        # The calls are not harmless by accident: Python's own unpickler runs them.
        pickle.loads(calls[0])
        self.assertTrue(proof.exists())

    def test_a_whole_module_is_refused(self):
        self.assert_refused(FIXTURES / "module.pth", r"torch.nn.modules.linear.Linear.*model.state_dict\(\)")

    def test_numbers_that_reach_out_of_the_storage_are_refused(self):
        record = [("0", b"\x00\x00\x80\x3f\x00\x00\x00\x40")]
        self.convert(archive(tensor_pickle(), record))  # the unharmed one is fine
        self.assertEqual(read_safetensors(self.target)[1], {"w": ["F32", [2], "0000803f00000040"]})
        self.target.unlink()
        minus_one = b"J\xff\xff\xff\xff"
        cases = {
            "offset beyond": (dict(offset=b"K\x01"), "reaches element 2 of storage '0', which has 2"),
            "size beyond": (dict(size=b"K\x03\x85"), "reaches element 2"),
            "stride beyond": (dict(stride=b"K\x07\x85"), "reaches element 7"),
            "negative offset": (dict(offset=minus_one), "not non-negative integers"),
            "negative stride": (dict(stride=minus_one + b"\x85"), "not non-negative integers"),
            "more strides than sizes": (dict(stride=b"K\x01K\x01\x86"), "as many strides as sizes"),
            "size that is text": (dict(size=b"X\x01\x00\x00\x002\x85"), "not non-negative integers"),
            "storage smaller than said": (dict(numel=b"K\x05"), "entry 'archive/data/0' has 8 bytes; its tensors say 20"),
            "storage of no known type": (dict(storage=b"ctorch\nComplexFloatStorage\n"), "torch.ComplexFloatStorage"),
            "repeated elements": (dict(size=b"J\x00\x00\x00\x7f\x85", stride=b"K\x00\x85"), "repeats the 2 elements"),
        }
        for name, (change, pattern) in cases.items():
            with self.subTest(name):
                self.assert_refused(archive(tensor_pickle(**change), record), pattern)
        self.assert_refused(FIXTURES / "expanded.pth", r"size \(1000,\) repeats the 1 elements.*contiguous\(\)")

    def test_values_that_are_no_dictionaries_of_tensors_are_refused(self):
        loop = {}
        loop["again"] = loop
        for value, pattern in (
            ([1, 2], "expected a dictionary of tensors, found an object of type 'list'"),
            ({}, "the state dict is empty"),
            ({"name": "text"}, "'name' is no tensor but of type 'str'"),
            ({3: {}}, "a key of type 'int'; expected text"),
            (loop, "'again' is a dictionary that appears twice"),
        ):
            for make in (legacy, archive):
                self.assert_refused(make(pickle.dumps(value, 2)), pattern)

    def test_foreign_files_are_refused(self):
        self.assert_refused(b"", "no PyTorch file")
        self.assert_refused(b"PK\x03\x04 no archive", "zip archive is damaged or truncated")
        self.assert_refused(pickle.dumps({"a": 1}, 2), "no PyTorch file")
        self.assert_refused(b"\x89PNG\r\n\x1a\n" + bytes(100), "no PyTorch file")
        self.assert_refused(archive(tensor_pickle(), [("0", bytes(8))], byteorder=b"big"), "big-endian")
        self.assert_refused(archive(tensor_pickle()), "no entry 'archive/data/0'")

    def test_every_truncation_is_refused(self):
        for name in ("zip.pth", "legacy.pth"):
            whole = (FIXTURES / name).read_bytes()
            for length in range(len(whole)):
                with self.subTest(name, length=length):
                    self.assert_refused(whole[:length], "truncated|damaged|no PyTorch file|no entry")

    def test_any_damaged_byte_is_refused_or_harmless(self):
        for name in ("zip.pth", "legacy.pth"):
            whole = bytearray((FIXTURES / name).read_bytes())
            for position in range(0, len(whole), 3):
                whole[position] ^= 0xFF
                try:
                    self.convert(bytes(whole))
                except convert_weights.Refused:
                    pass  # any other exception fails the test
                whole[position] ^= 0xFF

    def test_a_damaged_storage_in_an_archive_fails_its_checksum(self):
        whole = bytearray((FIXTURES / "zip.pth").read_bytes())
        with zipfile.ZipFile(FIXTURES / "zip.pth") as file:
            info = next(i for i in file.infolist() if "/data/" in i.filename and i.file_size)
        name_length, extra_length = struct.unpack("<HH", whole[info.header_offset + 26 : info.header_offset + 30])
        whole[info.header_offset + 30 + name_length + extra_length] ^= 1
        self.assert_refused(bytes(whole), "Bad CRC-32")

    def test_command_line(self):
        def run(*arguments):
            return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=60)

        done = run(FIXTURES / "zip.pth", self.target)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith(hashlib.sha256(self.target.read_bytes()).hexdigest() + "  "))
        refused = run(FIXTURES / "module.pth", self.folder / "other")
        self.assertEqual((refused.returncode, refused.stdout), (3, ""))
        self.assertIn("module.pth: the pickle wants to call", refused.stderr)
        self.assertNotIn("Traceback", refused.stderr)
        self.assertFalse((self.folder / "other").exists())
        missing = run(self.folder / "nothing.pth", self.target)
        self.assertEqual(missing.returncode, 3)
        self.assertIn("No such file", missing.stderr)
        self.assertEqual(run(FIXTURES / "zip.pth", self.folder / "no" / "folder").returncode, 3)
        self.assertEqual(run().returncode, 2)


if __name__ == "__main__":
    unittest.main()
