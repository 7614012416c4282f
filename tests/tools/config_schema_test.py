"""The JSON Schema that `gan-pipeline inspect --schema` prints, used as an editor would use it.

usage: config_schema_test.py GAN_PIPELINE CONFIGS_FOLDER
"""
import copy
import json
import pathlib
import subprocess
import sys
import unittest

import jsonschema
import yaml

PROGRAM, CONFIGS = sys.argv[1], pathlib.Path(sys.argv[2])


def tool(*arguments):
    return subprocess.run([PROGRAM, *arguments], check=True, capture_output=True, text=True).stdout


SCHEMA = json.loads(tool("inspect", "--schema"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


class ConfigSchema(unittest.TestCase):
    def test_it_is_a_schema(self):
        jsonschema.Draft7Validator.check_schema(SCHEMA)

    def test_every_shipped_configuration_fits(self):
        files = sorted(CONFIGS.glob("*.yaml"))
        self.assertGreaterEqual(len(files), 5)
        for file in files:
            with self.subTest(file=file.name):
                VALIDATOR.validate(yaml.safe_load(file.read_text()))

    def test_every_example_of_inspect_fits(self):
        stages = json.loads(tool("inspect", "--json"))["stages"]
        self.assertGreaterEqual(len(stages), 20)
        for stage in stages:
            with self.subTest(stage=stage["name"]):
                VALIDATOR.validate({"stages": yaml.safe_load(stage["example"])})

    def test_it_refuses_what_validate_refuses(self):
        good = yaml.safe_load((CONFIGS / "aircraft.yaml").read_text())
        VALIDATOR.validate(good)

        def wrong(change):
            config = copy.deepcopy(good)
            change(config)
            self.assertFalse(VALIDATOR.is_valid(config), config)

        def stage(name, **values):
            def change(config):
                next(s for s in config["stages"] if s["use"] == name).update(values)
            return change

        for change in [
            stage("augment.flip", p=1.5),
            stage("augment.flip", q=0.5),
            stage("augment.flip", p="0.5"),
            stage("augment.flip", direction="sideways"),
            stage("augment.flip", use="augment.flop"),
            stage("image.resize", size=128.5),
            stage("source.fgvc", split="training"),
            stage("evaluate.quality", held_out={"splitt": "test"}),
            stage("evaluate.quality", held_out={"fraction": 2}),
            lambda c: c["stages"].append({"p": 0.5}),
            lambda c: c["stages"].append({"change": "augment.flip", "p": 0.5}),
            lambda c: c["stages"].append({"use": "augment.one_of", "stages": []}),
            lambda c: c["stages"].append({"use": "augment.one_of",
                                          "stages": [{"use": "image.decode"}]}),
            lambda c: c.pop("stages"),
            lambda c: c.update(seed=-1),
            lambda c: c.update(sead=1),
            lambda c: c.update(plugins="augment_flip"),
            lambda c: c["run"].update(threads=0),
            lambda c: c["run"].update(threads="many"),
            lambda c: c["run"].update(device="tpu"),
            lambda c: c["run"].update(prefech=2),
        ]:
            wrong(change)

    def test_changes_of_a_base_fit_only_with_a_base(self):
        stages = [{"change": "augment.flip", "p": 0.3}, {"remove": "augment.affine"},
                  {"use": "image.crop", "after": "image.decode", "bottom": 3}]
        VALIDATOR.validate({"base": "a.yaml", "stages": stages})
        self.assertFalse(VALIDATOR.is_valid({"stages": stages}))
        self.assertFalse(VALIDATOR.is_valid({"base": "a.yaml", "stages": [{"remove": "x", "p": 1}]}))

    def test_it_describes_what_an_editor_shows(self):
        flip = SCHEMA["definitions"]["augment.flip"]
        self.assertEqual(flip["properties"]["p"]["default"], 0.5)
        self.assertEqual(flip["properties"]["p"]["description"], "probability")
        self.assertEqual(flip["properties"]["direction"]["enum"], ["horizontal", "vertical"])
        self.assertEqual(SCHEMA["definitions"]["image.resize"]["required"][0], "use")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
