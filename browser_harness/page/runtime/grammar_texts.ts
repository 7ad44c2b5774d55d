/** The parts of every schema's grammar: any value of JSON, and texts of a format. */
import { ANY_INTEGER, ANY_NUMBER } from "./grammar_numbers.ts";

/** Classes of this build of xgrammar are of bytes unless they are negated: then of characters. */
export const CHARACTER = '[^"\\\\\\x00-\\x1f]';

/**
 * White space is a blank or a line's end with its indentation, and never endless. Surrogates
 * are no characters: half a pair would be no text.
 */
export const BASE = `
ws ::= "" | " " | "\\n" [ \\t]{0,16}
hex ::= [0-9a-fA-F]
escape ::= "\\\\" (["\\\\/bfnrt] | "u" ([0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex))
string ::= "\\"" characters
characters ::= "\\"" | ${CHARACTER} characters | escape characters
integer ::= ${ANY_INTEGER}
number ::= ${ANY_NUMBER}
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (string ":" " "? value ("," ws string ":" " "? value)* ws)? "}"
array ::= "[" ws (value ("," ws value)* ws)? "]"
`;

const DAY = `([1-9] [0-9]{3} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])))`;
const HOUR = `([01] [0-9] | "2" [0-3])`;
const TIME = `(${HOUR} ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | ("+" | "-") ${HOUR} ":" [0-5] [0-9]))`;
/** What a string of a format has between its quotes; every day exists in every year. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: DAY,
  time: TIME,
  "date-time": `(${DAY} "T" ${TIME})`,
  uuid: `(hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12})`,
};
