"""What tests of tools/report share: documents, and pages made of them by tools/report.py as a program."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPORT = Path(__file__).resolve().parents[2] / "tools" / "report.py"
ORIGIN = {"model": "tiny<b>.gguf", "model_hash": "c0ffee", "threads": 2, "isa": "avx2", "repack": True, "version": "0.1.0",
          "kv_type": "f16", "seed": 7}
PERPLEXITY = {"command": "perplexity", **ORIGIN, "policy": "tova", "spec": "tova", "budget": 96, "perplexity": 33.33,
              "windows": 12, "tokens_scored": 6144, "text": "a.txt", "tokens": 12288, "ctx": 1024, "score": "half", "prompt": 0}


class PageTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def put(self, name, content):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    def report(self, *files, output="report.html"):
        command = [sys.executable, REPORT, "-o", self.folder / output, *files]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    def page(self, *files):
        done = self.report(*files)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return (self.folder / "report.html").read_text()

    def assert_refused(self, path, *words):
        done = self.report(path)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for word in (path, *words):
            self.assertIn(str(word), done.stderr)
        self.assertEqual([path.name for path in self.folder.glob("*.html*")], [])
