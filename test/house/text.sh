#!/bin/sh
# Counts for docs/acceptance/house.md, "Text, findings, warnings", of a commit: sh test/house/text.sh [COMMIT]
at=${1:-HEAD}
find() { git grep -nE "$1" "$at" -- 'src/*.ts' | grep -vE ':[0-9]+: *(\*|//)'; }
count() { printf '%-64s %s\n' "$1" "$(wc -l)"; }

# A message, warning, cause or problem that is searched, cut or matched.
find "\.message\.(replaceAll|includes|startsWith|endsWith|match)\(|\.message\.replace\(/\^|\b[pw]\.includes\(('[a-z]+ |[a-z]+\.address)|unmeasured\?\.includes\('|\.(exec|test)\(cause\)" |
  count 'places that parse a message of ours'
git grep -nE -A1 'catch \{$' "$at" -- 'src/*.ts' | grep -E "return (null|''|\[\]|false|undefined);" | count 'readers that swallow what they could not read'
find "isErrno\(e, 'EACCES', 'EPERM'\)|^.*EACCES: \{ code" | grep -v "root: true" | count 'places where an errno becomes HOSTDEV_NOT_PERMITTED'
find "replace\(/\[?\^?[^/]*(\\\\p\{C|\\\\x7[ef]| -~)|replace\((UNSAFE|UNSAFE_IN_BLOCK|/\[\^ -~\])" | count 'places that make a text safe'
find "JSON\.stringify\([a-zA-Z.]+\.slice\(|export (const|function) (printable|quote)\b" |
  count 'ways to quote what a message is about'
find "warnings\??: string\[\]" | count 'warnings as texts'
find "^export type Finding = \{|^export type Cause = \{" | count 'types of finding of their own'
find "(const|function) isObject\b|typeof \w+ [!=]== 'object' [|&]{2} \w+ [!=]== null" | count 'checks for "a JSON object"'
printf '%-64s %s\n' 'lines of src' "$(git archive "$at" src | tar -xO --wildcards 'src/*.ts' | wc -l)"
