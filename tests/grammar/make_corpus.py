#!/usr/bin/env python3
"""Writes corpus.jsonl: JSON Schemas with documents that fit and documents that do not, as python3-jsonschema judges.

    python3 tests/grammar/make_corpus.py > tests/grammar/corpus.jsonl      (Debian: python3-jsonschema)

A line is {"schema": …, "good": [documents], "bad": [documents]}. Documents keep to the rules of docs/structured-output.md
for writing (members in the order of the schema, others last; integers without a point; few digits), so that the grammar
has to give the same verdict on each. The seed is fixed: the same version of the library writes the same file.
"""
import datetime
import json
import random
import re
import sys

from jsonschema import Draft202012Validator, FormatChecker

rng = random.Random(20250807)
formats = FormatChecker(formats=["date", "ipv4", "uuid"])


@formats.checks("date")
def is_date(text):
    if not isinstance(text, str):
        return True
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        datetime.date(*map(int, text.split("-")))
    except ValueError:
        return False
    return True


@formats.checks("time")
def is_time(text):
    if not isinstance(text, str):
        return True
    parts = re.fullmatch(r"(..):(..):(..)(\.[0-9]{1,9})?(Z|[+-](..):(..))", text, re.ASCII)
    if not parts:
        return False
    limits = zip(parts.group(1, 2, 3, 6, 7), (24, 60, 60, 24, 60))
    return all(p is None or re.fullmatch("[0-9]{2}", p) and int(p) < most for p, most in limits)


@formats.checks("date-time")
def is_date_time(text):
    return not isinstance(text, str) or (text[10:11] == "T" and is_date(text[:10]) and is_time(text[11:]))


@formats.checks("email")
def is_email(text):
    if not isinstance(text, str):
        return True
    atom = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    local, at, domain = text.partition("@")
    labels = domain.split(".")
    label = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    return bool(at and re.fullmatch(rf"{atom}(\.{atom})*", local, re.ASCII)) and all(
        len(one) <= 63 and re.fullmatch(label, one, re.ASCII) for one in labels)


FORMATS = {
    "date": ["2024-02-29", "2023-02-29", "2000-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "2024-12-31", "0000-01-01",
             "24-01-01", "2024-1-1", "0001-01-01", "9999-12-31", "2024-00-10", "2024-10-00", "0004-02-29", "2100-02-29"],
    "time": ["12:00:00Z", "23:59:59.123456789+05:30", "24:00:00Z", "12:60:00Z", "12:00:60Z", "12:00:00", "1:00:00Z",
             "00:00:00-23:59", "00:00:00+24:00", "00:00:00.Z", "12:00:00z"],
    "date-time": ["2024-02-29T12:00:00Z", "2023-02-29T12:00:00Z", "2024-02-29 12:00:00Z", "2024-02-29T12:00:00.5+01:00",
                  "2024-02-29", "12:00:00Z", "2024-02-29T12:00Z"],
    "email": ["a@b", "first.last@example.com", "a@b..c", ".a@b", "a.@b", "@b", "a@", "a b@c", "a+b@c-d.e", "a@-b", "a@b-",
              "é@b", "a@b@c"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000",
             "123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400", "g23e4567-e89b-12d3-a456-426614174000"],
    "ipv4": ["0.0.0.0", "255.255.255.255", "256.1.1.1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "192.168.0.1", "1..2.3"],
}
PATTERNS = ["a", "^a", "a$", "^a$", "^(ab|cd)+$", "^[a-z]{2,4}$", "[0-9]{3}", r"^\d+(\.\d{2})?$", r"^\w+@\w+\.\w{2,3}$",
            "^[^x]*$", "^a.c$", "(foo|bar)?baz", "^(a|aa){1,3}$", "^$", "a|^b|c$", r"^\$[0-9]+$", "^[A-Z][a-z]*( [A-Z][a-z]*)*$",
            "^é+$", "[äöü]", r"^\u00e9", r'^["\\]+$', r"^[\n\t]+$", "^(?:x(?:y(?:z)?)?)?$", "^[a-c-]+$", r"^[\]\[]+$", "x*y*z*",
            "^a{0}b$", "^(a?){3}$", "😀", "^.{2}$", r"^\S+\s\S+$", "(^a|b)c", "[^a-z]", r"^\x41\t?$", "a{2}(b|c){1,2}d"]
# Python lets $ match before a last line feed, ECMA-262 does not: no word ends in a single one.
WORDS = ["", "a", "b", "ab", "abc", "cd", "abcd", "abab", "xyz", "x", "xy", "baz", "foobaz", "bar", "123", "12.50", "12.5",
         "007", "a1b2", "Hello", "Hello World", "hello world", "aa", "aaa", "aaaaaaa", "bc", "ac", "a.c", "axc", "é", "éé", "ü",
         "naïve", "😀", "a😀", "日本", "\"", "\\", "\"\\", "\n\n", "\n\t", "a\nb", "/", "$5", "$", "me@here.org", "a@b.cd", "[]",
         "a-b", "-", "A", "A\t", "aabd", "aabcd", "aacd", " ", "  ", "\u0001", "\u007f", "\u2028", "null", "true", "0"]
NUMBERS = [0, 1, -1, 2, 3, 5, 7, 10, 12, 15, 42, 99, 100, 101, 150, 255, 1000, -5, -10, -42, -100, 1234567, 0.5, -0.5, 0.25,
           1.5, 2.75, 9.99, 10.01, -1.25, 99.5, 100.5, 0.1, 0.001, -0.001, 3.14159, 12345.678, 999999999999, 0.125, 1e5 + 0.5]
KEYS = ["a", "b", "c", "name", "key \"q\"", "é", "long_name", "n"]
EXTRA = ["zx", "zy", "zz"]  # of no schema, and after all others


def random_value(depth=2):
    kind = rng.randrange(8 if depth > 0 else 6)
    if kind == 6:
        return [random_value(depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {key: random_value(depth - 1) for key in sorted(rng.sample(KEYS + EXTRA, rng.randrange(4)))}
    return rng.choice([None, True, False, rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(WORDS)])


def string_schema():
    schema = {"type": "string"}
    kind = rng.randrange(7)
    if kind in (0, 1):
        schema["pattern"] = rng.choice(PATTERNS)
    if kind == 2:
        schema["format"] = rng.choice(list(FORMATS))
    if kind in (1, 3, 4):
        if rng.random() < 0.6:
            schema["minLength"] = rng.randrange(4)
        if rng.random() < 0.6:
            schema["maxLength"] = rng.randrange(3, 7)
    if kind == 5:
        schema["enum"] = rng.sample(WORDS, rng.randrange(1, 6))
    return schema


def number_schema():
    schema = {"type": rng.choice(["integer", "number"])}
    bounds = [n for n in NUMBERS if schema["type"] == "number" or rng.random() < 0.2 or isinstance(n, int)]
    if rng.random() < 0.6:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = rng.choice(bounds)
    if rng.random() < 0.6:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = rng.choice(bounds)
    if rng.random() < 0.25:
        schema["multipleOf"] = rng.choice([1, 2, 3, 5, 7, 10, 100])
    return schema


def array_schema(depth):
    schema = {"type": "array"}
    if rng.random() < 0.8:
        schema["items"] = random_schema(depth - 1)
    if rng.random() < 0.3:
        schema["prefixItems"] = [random_schema(depth - 1) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.4:
        schema["minItems"] = rng.randrange(3)
    if rng.random() < 0.4:
        schema["maxItems"] = rng.randrange(2, 5)
    return schema


def object_schema(depth):
    names = sorted(rng.sample(KEYS, rng.randrange(5)))
    schema = {"type": "object", "properties": {name: random_schema(depth - 1) for name in names}}
    if rng.random() < 0.7:
        schema["required"] = [name for name in names if rng.random() < 0.5]
    if rng.random() < 0.1:
        schema.setdefault("required", []).append("zr")
    if rng.random() < 0.7:
        schema["additionalProperties"] = rng.choice([False, False, True, random_schema(depth - 1)])
    if rng.random() < 0.15:
        schema["maxProperties"] = rng.randrange(1, 4)
    if rng.random() < 0.15:
        schema["minProperties"] = rng.randrange(1, 3)
        schema["additionalProperties"] = False
    return schema


def random_schema(depth=3):
    kind = rng.randrange(20)
    if depth <= 0:
        kind %= 9
    if kind <= 2:
        return string_schema()
    if kind <= 5:
        return number_schema()
    if kind == 6:
        return {"type": rng.choice(["null", "boolean", "string", "integer", "number"])}
    if kind == 7:
        return rng.choice([{"const": random_value(1)}, {"enum": [random_value(1) for _ in range(rng.randrange(1, 5))]}])
    if kind == 8:
        return rng.choice([True, {}, {"type": rng.sample(["null", "boolean", "string", "integer", "array"], 2)},
                           {"minLength": 2}, {"maximum": 10}, {"type": ["string", "number"], "maxLength": 3, "minimum": 1}])
    if kind <= 11:
        return array_schema(depth)
    if kind <= 16:
        return object_schema(depth)
    return {"anyOf": [random_schema(depth - 1) for _ in range(rng.randrange(1, 4))]}


def schema_with_references():
    """Definitions that refer to one another, to themselves too, and a document of them."""
    names = ["leaf", "list", "node", "pair"]
    refer = lambda: {"$ref": "#/$defs/" + rng.choice(names)}  # noqa: E731
    definitions = {
        "leaf": random_schema(0) or True,
        "list": {"type": "array", "items": refer(), **({"maxItems": rng.randrange(1, 4)} if rng.random() < 0.5 else {})},
        "node": {"type": "object", "properties": {"a": refer(), "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
                 "required": ["next"] if rng.random() < 0.5 else [], "additionalProperties": False},
        "pair": {"type": "array", "prefixItems": [{"$ref": "#/$defs/leaf"}, refer()], "minItems": 1, "items": False},
    }
    root = rng.choice([refer(), {"anyOf": [refer(), refer()]}, {"type": "array", "items": refer()}, {
        "type": "object", "properties": {"a": refer(), "b": refer(), "c": {"$ref": "#/properties/a"}},
        "required": ["a"], "additionalProperties": rng.choice([False, refer()])}])
    return {**root, "$defs": definitions}


def candidate(schema, root, depth=6):
    """A document that probably fits."""
    if depth <= 0 or isinstance(schema, bool) or not schema:
        return random_value(1)
    if "$ref" in schema:
        target = root
        for part in schema["$ref"][1:].split("/")[1:]:
            target = target[part]
        return candidate(target, root, depth - 1)
    if "anyOf" in schema:
        return candidate(rng.choice(schema["anyOf"]), root, depth - 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        kind = rng.choice(kind)
    if kind == "string":
        return rng.choice(FORMATS[schema["format"]] if "format" in schema else WORDS)
    if kind in ("integer", "number"):
        return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randrange(-200, 200)
    if kind == "array":
        prefix = schema.get("prefixItems", [])
        size = rng.randrange(schema.get("minItems", 0), schema.get("maxItems", 3) + 1) if rng.random() < 0.8 else rng.randrange(5)
        return [candidate(prefix[i] if i < len(prefix) else schema.get("items", True), root, depth - 1) for i in range(size)]
    if kind == "object":
        document = {}
        required = schema.get("required", [])
        for name, inside in schema.get("properties", {}).items():
            if name in required or rng.random() < 0.5:
                document[name] = candidate(inside, root, depth - 1)
        for name in ["zr"] * ("zr" in required) + EXTRA:
            if schema.get("additionalProperties", True) is not False and (name == "zr" or rng.random() < 0.2):
                document[name] = candidate(schema.get("additionalProperties", True), root, depth - 1)
        return document
    return {"null": None, "boolean": rng.random() < 0.5}.get(kind, random_value(1))


def mutated(document):
    """The same with one thing changed; members stay in their order."""
    if isinstance(document, list) and document and rng.random() < 0.8:
        i = rng.randrange(len(document))
        return rng.choice([document[:i] + [mutated(document[i])] + document[i + 1:], document[:i] + document[i + 1:],
                           document + [document[i]]])
    if isinstance(document, dict) and document and rng.random() < 0.8:
        name = rng.choice(list(document))
        if rng.random() < 0.3:
            return {key: value for key, value in document.items() if key != name}
        if rng.random() < 0.2:
            return {**document, "zz": random_value(0)}
        return {key: mutated(value) if key == name else value for key, value in document.items()}
    return random_value(1)


def fixed_schemas():
    for pattern in PATTERNS:
        yield {"type": "string", "pattern": pattern}, WORDS
        yield {"type": "string", "pattern": pattern, "maxLength": 3}, WORDS
    for name, texts in FORMATS.items():
        yield {"type": "string", "format": name}, texts
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        for bound in (0, 10, -10, 99, 0.5, -0.5, 100.25, -100.25, 1000, 0.001):
            for kind in ("integer", "number"):
                yield {"type": kind, keyword: bound}, NUMBERS
    for low, high in ((0, 150), (-5, 5), (-100, -10), (10, 99), (95, 1005), (0, 0), (1.5, 2.5), (-0.25, 0.125)):
        near = [n for b in (low, high) for n in (b, b - 1, b + 1, b - 0.5, b + 0.5)]
        near = [int(n) if n == int(n) else n for n in near]
        yield {"type": "number", "minimum": low, "maximum": high}, NUMBERS + near
        yield {"type": "integer", "exclusiveMinimum": low, "maximum": high}, NUMBERS + near
    for n in (2, 3, 7, 10, 12, 25, 100):
        yield {"type": "number", "multipleOf": n, "minimum": -100}, NUMBERS + [n, -n, 5 * n, 5 * n + 1]
    for low, high in ((0, 2), (2, 3), (3, None), (0, 0)):
        lengths = {"minLength": low, **({"maxLength": high} if high is not None else {})}
        yield {"type": "string", **lengths}, WORDS
        sizes = {"minItems": low, **({"maxItems": high} if high is not None else {})}
        yield {"type": "array", **sizes}, [[1] * n for n in range(5)]
        yield {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": {"type": "null"}, **sizes}, [
            [], [1], [1, "a"], [1, "a", None], [1, "a", None, None], ["a"], [1, 1], [1, "a", 3]]
    person = {"type": "object", "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
              "required": ["name"], "additionalProperties": False}
    yield person, [{"name": "a"}, {"name": "a", "children": []}, {"name": "a", "children": [{"name": "b"}]},
                   {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]},
                   {"name": "a", "children": [{"children": []}]}, {}, {"name": 1}, {"name": "a", "children": [1]}]
    tree = {"$ref": "#/$defs/tree", "$defs": {
        "tree": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {
            "left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}, "value": {"$ref": "#/$defs/value"}},
            "required": ["left", "right"], "additionalProperties": False}]},
        "value": {"type": ["integer", "string"], "minimum": 0, "minLength": 1}}}
    leaf = {"left": None, "right": None}
    yield tree, [None, leaf, {"left": leaf, "right": None, "value": 3}, {"left": None}, {"left": leaf, "right": leaf, "value": ""},
                 {"left": leaf, "right": {"left": leaf, "right": None, "value": "x"}}, {"left": 1, "right": None}, 1]
    yield {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "number"}, "maxItems": 2},
                     {"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}]}]}, [
        [1], [1, 2, 3], [1.5], [1.5, 2], [1.5, 2, 3], [1, "a", {}], [2, "a"], ["a"], [], [1, 2, "a"]]
    shapes = [{"type": "object", "properties": {"kind": {"const": kind}, "size": {"type": "number", "minimum": 0}, **more},
               "required": ["kind", "size", *more], "additionalProperties": False}
              for kind, more in (("circle", {}), ("box", {"width": {"type": "integer"}}), ("text", {"words": {"type": "string"}}))]
    yield {"anyOf": shapes}, [{"kind": "circle", "size": 1}, {"kind": "box", "size": 1}, {"kind": "box", "size": 1, "width": 2},
                              {"kind": "text", "size": 1, "words": "a"}, {"kind": "text", "size": -1, "words": "a"}, {"kind": "x"}]


def main():
    lines, pairs, seen = 0, 0, set()

    def write(schema, documents):
        nonlocal lines, pairs
        validator = Draft202012Validator(schema, format_checker=formats)
        good, bad = [], []
        for document in documents:
            text = json.dumps(document, ensure_ascii=False)
            key = (json.dumps(schema), text)
            if key in seen:
                continue
            seen.add(key)
            (good if validator.is_valid(document) else bad).append(document)
        if good or bad:
            print(json.dumps({"schema": schema, "good": good, "bad": bad}, ensure_ascii=False, separators=(",", ":")))
            lines, pairs = lines + 1, pairs + len(good) + len(bad)

    for schema, documents in fixed_schemas():
        write(schema, documents)
    for make, count in ((random_schema, 700), (schema_with_references, 120)):
        for _ in range(count):
            schema = make()
            if isinstance(schema, bool):
                continue
            documents = [candidate(schema, schema) for _ in range(6)]
            documents += [mutated(document) for document in documents[:4]] + [random_value()]
            write(schema, documents)
    print(f"{lines} schemas, {pairs} documents", file=sys.stderr)


if __name__ == "__main__":
    main()
