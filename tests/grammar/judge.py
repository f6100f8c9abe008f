#!/usr/bin/env python3
"""Judges documents that were written under grammars, by python3-jsonschema.

Reads lines {"schema": …, "whole": [texts], "cut": [texts]}: a whole text has to be a document that fits the schema, a cut
one must be none. Prints the first that are otherwise; exit code 1 where there are any.
"""
import json
import re
import sys

from jsonschema import Draft202012Validator, ValidationError, validators

from make_corpus import formats

# Python's patterns are not quite those of ECMA-262.
SPACE = "\\t\\n\\v\\f\\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"


def pattern(_validator, value, instance, _schema):
    translated = value.replace(r"\S", f"[^{SPACE}]").replace(r"\s", f"[{SPACE}]")
    translated = re.sub(r"(?<!\\)\$", r"\\Z", translated)  # $ before a last line feed
    if isinstance(instance, str) and not re.search(translated, instance, re.ASCII):
        yield ValidationError(f"{instance!r} does not match {value!r}")


Validator = validators.extend(Draft202012Validator, {"pattern": pattern})


def fits(validator, text):
    try:
        return validator.is_valid(json.loads(text))
    except json.JSONDecodeError:
        return False


wrong = judged = 0
for line in sys.stdin:
    entry = json.loads(line)
    validator = Validator(entry["schema"], format_checker=formats)
    for kind in ("whole", "cut"):
        for text in entry[kind]:
            judged += 1
            if fits(validator, text) == (kind == "whole"):
                continue
            wrong += 1
            if wrong <= 10:
                print(f"{kind}, but {'does not fit' if kind == 'whole' else 'fits'}: {text}\n  {json.dumps(entry['schema'])}")
print(f"{judged} judged, {wrong} of them wrong")
sys.exit(1 if wrong or not judged else 0)
