"""Writes a small model with bench/shaped_model.py and lets A2SF_PROGRAM read it."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

try:
    import shaped_model
except ImportError:
    shaped_model = None

PROGRAM = os.environ.get("A2SF_PROGRAM", "")
SKIPPED = 77


def a2sf(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments), "--json"], stdout=subprocess.PIPE, timeout=120, check=True)
    return json.loads(done.stdout)


class ShapedModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = Path(cls.folder.name) / "model.gguf"
        cls.shape = shaped_model.Shape("a thimble", layers=2, heads=4, width=128, feed_forward=352, vocabulary=256, context=64)
        shaped_model.write_model(cls.model, cls.shape)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_inspect_finds_the_shape(self):
        facts, shape = a2sf("inspect", self.model), self.shape
        self.assertTrue(facts["supported"], facts.get("why_not"))
        self.assertEqual(facts["name"], "random model in the shape of a thimble")
        found = [facts[key] for key in ("layers", "heads", "kv_heads", "embedding", "feed_forward", "vocabulary",
                                        "trained_context_tokens")]
        self.assertEqual(found, [shape.layers, shape.heads, shape.heads, shape.width, shape.feed_forward, shape.vocabulary,
                                 shape.context])
        self.assertEqual(set(facts["tensor_types"]), {"f32", "q4_0"})

    def test_it_decodes(self):
        row, = a2sf("bench", "-m", self.model, "-p", 0, "-n", 4, "-d", 32, "-r", 1, "--budget", 16)["rows"]
        self.assertEqual((row["test"], row["n_tokens"], row["depth"]), ("decode", 4, 32))

    def test_only_the_complete_file_is_left(self):
        self.assertEqual(os.listdir(self.folder.name), ["model.gguf"])


if __name__ == "__main__":
    if shaped_model is None or not PROGRAM:
        print("skipped: no gguf package (tools/deps), or A2SF_PROGRAM is not set")
        sys.exit(SKIPPED)
    unittest.main()
