"""The parts of tools/tag that need no tagger: which bytes a token stands for, and the class that most occurrences have."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import tag  # noqa: E402


class TagTest(unittest.TestCase):
    PIECES = [b"", b"In", b" 19", b"84", b",", b" he", b"\xc3", b"\xa9"]

    def test_tokens_are_placed_by_their_bytes(self):
        text = "In 1984,é".encode()
        placed = list(tag.place_tokens(text, [0, 1, 2, 3, 4, 6, 7], self.PIECES))
        self.assertEqual(placed, [(0, 0, 0), (1, 0, 2), (2, 2, 5), (3, 5, 7), (4, 7, 8), (6, 8, 9), (7, 9, 10)])

    def test_a_space_that_a_vocabulary_adds_is_none_of_the_text(self):
        self.assertEqual(list(tag.place_tokens(b"he,", [5, 4], self.PIECES)), [(5, 0, 2), (4, 2, 3)])

    def test_tokens_of_another_text_are_refused(self):
        with self.assertRaises(tag.TagError):
            list(tag.place_tokens(b"In", [5], self.PIECES))

    def test_a_token_is_of_the_class_that_most_occurrences_have(self):
        spans = [(0, 2, "ADP"), (2, 3, "SPACE"), (3, 7, "DATE"), (7, 8, "PUNCT"), (8, 10, "NOUN"), (10, 12, "NOUN")]
        placed = [(1, 0, 2), (2, 2, 5), (3, 5, 7), (4, 7, 8), (1, 8, 10), (1, 10, 12)]
        self.assertEqual(tag.class_of_tokens(placed, spans), {1: "NOUN", 2: "DATE", 3: "DATE", 4: "PUNCT"})

    def test_the_document_lists_each_token_once_and_ends_with_the_rest(self):
        document = tag.document_of({1: "NOUN", 2: "DATE", 0: "SPACE"}, self.PIECES)
        self.assertEqual((document["format"], document["vocabulary"]), ("a2sf-classes-1", 8))
        self.assertEqual([(row["name"], row["tokens"]) for row in document["classes"]],
                         [("DATE", [2]), ("NOUN", [1]), ("rest", [])])

    def test_byte_pair_letters_are_all_bytes(self):
        self.assertEqual(sorted(tag.bytes_of_bpe().values()), list(range(256)))
        self.assertEqual(tag.bytes_of_bpe()["\u0120"], ord(" "))


if __name__ == "__main__":
    unittest.main()
