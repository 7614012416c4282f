#!/usr/bin/env python3
"""Converts a PyTorch state dict (.pth, .pt) into a safetensors file. Needs only Python's standard library.

    tools/convert_weights.py IN.pth OUT.safetensors [--key PART]

Reads both formats of torch.save: the zip archive (PyTorch 1.6 and later) and the older row of pickles. A pickle is a program;
this one may name nothing but tensors, their storages and (ordered) dictionaries, so a hostile file is refused before anything
of it runs. Every tensor is written contiguous, row-major, little-endian; tensors that share a storage are written in full each.
Nested dictionaries become dotted names. The same input gives the same bytes. Prints the SHA-256 of the output.

Exit codes: 0 done, 2 wrong usage, 3 the input can't be read or is refused.

Formats: https://github.com/huggingface/safetensors#format, torch/serialization.py.
"""

import argparse
import hashlib
import io
import json
import math
import os
import pickle
import struct
import sys
import tempfile
import zipfile
import zlib

# Storage class (before "Storage") or dtype as pickles name it -> (safetensors dtype, bytes of an element)
DTYPES = {
    "Double": ("F64", 8), "Float": ("F32", 4), "Half": ("F16", 2), "BFloat16": ("BF16", 2),
    "Long": ("I64", 8), "Int": ("I32", 4), "Short": ("I16", 2), "Char": ("I8", 1), "Byte": ("U8", 1), "Bool": ("BOOL", 1),
    "uint64": ("U64", 8), "uint32": ("U32", 4), "uint16": ("U16", 2),
    "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1),
}  # fmt: skip
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# What zipfile and zlib raise on damaged archives
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)
MAX_HEADER = 100_000_000  # safetensors' own limit


class Refused(Exception):
    """The input is not what this program converts. The text says what was found and what to do."""


class StorageType:
    """What the pickle calls torch.FloatStorage, or torch.uint16: an element type and no more."""

    def __init__(self, name, dtype, itemsize):
        self.name, self.dtype, self.itemsize = name, dtype, itemsize


class Storage:
    """A flat run of bytes; `data` is set at once (zip) or when the end of the file has been read (legacy)."""

    def __init__(self, key, kind, numel, data=None):
        self.key, self.kind, self.numel, self.data = key, kind, numel, data


class Tensor:
    """A strided view of a storage. `offset` and `stride` count elements."""

    def __init__(self, storage, kind, offset, size, stride):
        self.storage, self.kind, self.offset, self.size, self.stride = storage, kind, offset, size, stride

    def __setstate__(self, state):
        raise Refused("the pickle puts extra state onto a tensor; save a plain state dict")


class StateDict(dict):
    """Stands for dict and OrderedDict; drops the attributes that nn.Module hangs on it (version numbers)."""

    def __setstate__(self, state):
        pass


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def rebuild_tensor(storage, offset, size, stride, *_, dtype=None):
    if not isinstance(storage, Storage):
        raise Refused("a tensor of the pickle has no storage")
    size, stride = tuple(size), tuple(stride)
    kind = dtype or storage.kind
    if len(size) != len(stride) or not all(is_count(n) for n in (offset, *size, *stride)):
        raise Refused("offset, size and stride of a tensor are not non-negative integers, as many strides as sizes")
    numel = math.prod(size)
    capacity = storage.numel * storage.kind.itemsize // kind.itemsize
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if numel else 0
    if numel and last >= capacity:
        raise Refused(f"a tensor reaches element {last} of storage '{storage.key}', which has {capacity}")
    if numel > capacity:  # an expanded tensor; also what a small file would use to fill a disk
        raise Refused(f"a tensor of size {size} repeats the {capacity} elements of its storage; call .contiguous() before saving")
    return Tensor(storage, kind, offset, size, stride)


def rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
    if not isinstance(dtype, StorageType):
        raise Refused("a tensor of the pickle has no known element type")
    return rebuild_tensor(storage, offset, size, stride, dtype=dtype)


def rebuild_parameter(data, requires_grad, hooks):
    if not isinstance(data, Tensor):
        raise Refused("a parameter of the pickle holds no tensor")
    return data


ALLOWED = {
    ("collections", "OrderedDict"): StateDict,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch.storage", "UntypedStorage"): StorageType("UntypedStorage", "U8", 1),
}
for _name, (_dtype, _itemsize) in DTYPES.items():
    _global = _name if _name[0].islower() else _name + "Storage"
    ALLOWED["torch", _global] = StorageType(_global, _dtype, _itemsize)


class SafeUnpickler(pickle.Unpickler):
    """Unpickles tensors and dictionaries. `find_class` is the only way from a pickle to code, and it knows ALLOWED alone."""

    def __init__(self, file, load_storage):
        super().__init__(file, encoding="utf-8")
        self._load_storage = load_storage

    def find_class(self, module, name):
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"the pickle wants to call {module}.{name}, which is no tensor and no dictionary. Nothing of it was run. "
                          "If you trust the file, load it in PyTorch and save model.state_dict() alone") from None

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], StorageType)
                and isinstance(pid[2], str) and is_count(pid[4])):
            raise Refused("the pickle refers to something outside of it that is no tensor storage")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("a storage is a view of another one (PyTorch before 0.4); save the file again with a newer PyTorch")
        return self._load_storage(pid[2], pid[1], pid[4])


def unpickle(file, load_storage=None):
    def no_storage(*_):
        raise Refused("the header of the file refers to a tensor")

    try:
        return SafeUnpickler(file, load_storage or no_storage).load()
    except Refused:
        raise
    except EOFError:
        raise Refused("the file ends in the middle of a pickle: it is truncated") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise Refused(f"the pickle is damaged or truncated ({type(error).__name__}: {error})") from None


def load_zip(file):
    """The format of PyTorch 1.6 and later: NAME/data.pkl and one entry NAME/data/KEY for each storage."""
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise Refused(f"the zip archive is damaged or truncated ({error})") from None
    with archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"the zip archive holds {len(pickles)} entries named data.pkl; expected 1, as torch.save writes")
        root = pickles[0][: -len("data.pkl")]

        def read(name, expected_size=None):
            try:
                info = archive.getinfo(root + name)
                if expected_size is not None and info.file_size != expected_size:
                    raise Refused(f"entry '{root + name}' has {info.file_size} bytes; its tensors say {expected_size}")
                return archive.read(info)  # checks the CRC
            except KeyError:
                raise Refused(f"the zip archive has no entry '{root + name}'") from None
            except ZIP_ERRORS as error:
                raise Refused(f"entry '{root + name}' of the zip archive is damaged or truncated ({error})") from None

        if root + "byteorder" in archive.namelist() and read("byteorder") != b"little":
            raise Refused("the file was saved on a big-endian machine; save it again on a little-endian one")
        storages = {}

        def load_storage(key, kind, numel):
            if key not in storages:
                storages[key] = Storage(key, kind, numel, read(f"data/{key}", numel * kind.itemsize))
            return same_storage(storages[key], kind, numel)

        return unpickle(io.BytesIO(read("data.pkl")), load_storage)


def load_legacy(file):
    """Before 1.6: pickles of magic, protocol, machine, object and storage keys; then each storage as int64 count + bytes."""
    if file.getvalue()[:1] != pickle.PROTO or unpickle(file) != LEGACY_MAGIC:
        raise Refused("this is no PyTorch file: neither a zip archive nor the magic number of the older format")
    protocol = unpickle(file)
    if protocol != 1001:
        raise Refused("the file is of an unknown version of the older format; expected version 1001")
    machine = unpickle(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("the file was saved on a big-endian machine; save it again on a little-endian one")
    storages = {}

    def load_storage(key, kind, numel):
        return same_storage(storages.setdefault(key, Storage(key, kind, numel)), kind, numel)

    state = unpickle(file, load_storage)
    keys = unpickle(file)
    if not isinstance(keys, list):
        raise Refused("the list of storages is missing: the file is damaged")
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise Refused("the file lists a storage that no tensor uses: it is damaged")
        count = file.read(8)
        size = storage.numel * storage.kind.itemsize
        if len(count) == 8 and struct.unpack("<q", count)[0] != storage.numel:
            raise Refused(f"storage '{key}' has {struct.unpack('<q', count)[0]} elements; its tensors say {storage.numel}")
        storage.data = file.read(size)
        if len(count) != 8 or len(storage.data) != size:
            raise Refused(f"the file ends in storage '{key}': it is truncated")
    missing = [key for key, storage in storages.items() if storage.data is None]
    if missing:
        raise Refused(f"the file has no data for storage '{missing[0]}': it is damaged")
    return state


def same_storage(storage, kind, numel):
    if storage.kind is not kind or storage.numel != numel:
        raise Refused(f"storage '{storage.key}' is described twice, in two ways: the file is damaged")
    return storage


def select(state, key):
    """The part of a nested checkpoint that --key names, e.g. 'state_dict'."""
    for part in key.split(".") if key else []:
        if not isinstance(state, dict) or part not in state:
            known = ", ".join(sorted(k for k in state if isinstance(k, str))[:10]) if isinstance(state, dict) else "no dictionary"
            raise Refused(f"--key {key}: '{part}' is not there; found {known}")
        state = state[part]
    return state


def flatten(state):
    """{dotted name: Tensor}, refusing every other value."""
    if not isinstance(state, dict):
        raise Refused(f"expected a dictionary of tensors, found an object of type '{type(state).__name__}'")
    tensors, seen, todo = {}, {id(state)}, [("", state)]
    while todo:
        prefix, part = todo.pop()
        for name, value in part.items():
            if not isinstance(name, str):
                raise Refused(f"'{prefix}' has a key of type '{type(name).__name__}'; expected text")
            full_name = prefix + name
            if isinstance(value, dict):
                if id(value) in seen:  # it may even hold itself
                    raise Refused(f"'{full_name}' is a dictionary that appears twice")
                seen.add(id(value))
                todo.append((full_name + ".", value))
            elif not isinstance(value, Tensor):
                raise Refused(f"'{full_name}' is no tensor but of type '{type(value).__name__}'; "
                              "choose the part that holds the weights with --key")
            elif full_name in tensors or full_name == "__metadata__":
                raise Refused(f"the name '{full_name}' is there twice, or reserved")
            else:
                tensors[full_name] = value
    return tensors


def contiguous_bytes(tensor):
    """The tensor's elements in row-major order."""
    itemsize = tensor.kind.itemsize
    if math.prod(tensor.size) == 0:
        return b""
    # Dimensions of size 1 have no meaningful stride; neighbours that are contiguous together become one.
    dims = []
    for size, stride in zip(tensor.size, tensor.stride):
        if size == 1:
            continue
        if dims and dims[-1][1] == size * stride:
            dims[-1] = (dims[-1][0] * size, stride)
        else:
            dims.append((size, stride))
    *outer, (length, step) = dims or [(1, 1)]
    view = memoryview(tensor.storage.data)
    view = view[: len(view) // itemsize * itemsize].cast({1: "B", 2: "H", 4: "I", 8: "Q"}[itemsize])
    starts = [tensor.offset]
    for size, stride in outer:
        starts = [start + i * stride for start in starts for i in range(size)]
    if step == 0:
        return b"".join(view[start : start + 1].tobytes() * length for start in starts)
    return b"".join(view[start : start + (length - 1) * step + 1 : step].tobytes() for start in starts)


def safetensors_bytes(tensors, metadata):
    """Yields the file. Widest elements first, then by name: every tensor is aligned, and the order is the reference writer's."""
    order = sorted(tensors, key=lambda name: (-tensors[name].kind.itemsize, name))
    header, end = {"__metadata__": metadata}, 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + math.prod(tensor.size) * tensor.kind.itemsize
        header[name] = {"dtype": tensor.kind.dtype, "shape": list(tensor.size), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise Refused(f"the header would have {len(text)} bytes; safetensors allows {MAX_HEADER}")
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        yield contiguous_bytes(tensors[name])


def convert(source, target, key=""):
    """Converts one file; returns (number of tensors, bytes, SHA-256 of the output). The output appears whole or not at all."""
    with open(source, "rb") as file:
        content = file.read()
    state = load_zip(io.BytesIO(content)) if content[:4] == b"PK\x03\x04" else load_legacy(io.BytesIO(content))
    tensors = flatten(select(state, key))
    if not tensors:
        raise Refused("the state dict is empty")
    metadata = {"format": "pt", "source": os.path.basename(source), "source_sha256": hashlib.sha256(content).hexdigest()}
    result, size = hashlib.sha256(), 0
    handle, temporary = tempfile.mkstemp(prefix=os.path.basename(target) + ".tmp-", dir=os.path.dirname(target) or ".")
    try:
        with os.fdopen(handle, "wb") as out:
            for chunk in safetensors_bytes(tensors, metadata):
                out.write(chunk)
                result.update(chunk)
                size += len(chunk)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return len(tensors), size, result.hexdigest()


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Convert a PyTorch state dict into a safetensors file.", allow_abbrev=False)
    parser.add_argument("source", metavar="IN.pth")
    parser.add_argument("target", metavar="OUT.safetensors")
    parser.add_argument("--key", default="", help="the part of the checkpoint that holds the weights, e.g. state_dict")
    options = parser.parse_args(arguments)
    try:
        count, size, digest = convert(options.source, options.target, options.key)
    except (Refused, OSError) as error:
        print(f"convert_weights: {options.source}: {error}", file=sys.stderr)
        return 3
    print(f"{digest}  {options.target}  ({count} tensors, {size} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
