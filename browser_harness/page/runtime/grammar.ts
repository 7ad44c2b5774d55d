import { TabwrightError } from "./errors.ts";
import { type Bound, decimalsWithin, integersWithin } from "./grammar_numbers.ts";
import { BASE, CHARACTER, FORMATS } from "./grammar_texts.ts";

/** A JSON Schema (2020-12), of which {@link grammarOf} understands a part. */
export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

type Keywords = { readonly [keyword: string]: unknown };

/** Keywords that say nothing about which values fit. */
const ANNOTATIONS = ["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$defs", "definitions"];

/** What each type is described by. */
const KEYWORDS = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems", "uniqueItems"],
  string: ["minLength", "maxLength", "format"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  boolean: [],
  null: [],
} as const;
type TypeName = keyof typeof KEYWORDS;

/** Every state of a length costs the preparation of a mask over the vocabulary, some 40 ms. */
const LONGEST = 128;

/**
 * The texts that are values of `schema`, as EBNF whose root is \`root\`. Properties come in the
 * schema's order, and no others than it lists; every text of the grammar is valid JSON and fits.
 *
 * @throws TabwrightError `schema-unsupported`, naming the place and the keyword that cannot be
 *   enforced, or that nothing fits.
 */
export function grammarOf(schema: JsonSchema): string {
  const writer = new Writer(schema);
  const root = writer.rule(schema, "#", []);
  return `${BASE}${writer.rules.map(([name, body]) => `${name} ::= ${body}\n`).join("")}root ::= ws ${root}\n`;
}

class Writer {
  readonly rules: [name: string, body: string][] = [];
  readonly #root: JsonSchema;
  readonly #names = new Map<object, string>();

  constructor(root: JsonSchema) {
    this.#root = root;
  }

  /**
   * The name of the rule for `schema`.
   *
   * @param within the schemas that begin where this one does.
   */
  rule(schema: unknown, at: string, within: readonly object[]): string {
    if (schema === true) return "value";
    if (schema === false) throw refusal(at, "no value fits false");
    if (!isObject(schema)) throw refusal(at, "a schema is an object or a boolean");
    if (within.includes(schema)) throw refusal(at, "a schema refers to itself without end");
    const known = this.#names.get(schema);
    if (known !== undefined && within.length === 0) return known;
    const name = known ?? `r${this.#names.size}`;
    this.#names.set(schema, name);
    const body = this.#body(schema, at, [...within, schema]);
    if (known === undefined) this.rules.push([name, body]);
    return name;
  }

  #body(schema: Keywords, at: string, within: readonly object[]): string {
    const asked = Object.keys(schema).filter((keyword) => !ANNOTATIONS.includes(keyword));
    const only = (...allowed: readonly string[]) => {
      const strange = asked.find((keyword) => !allowed.includes(keyword));
      if (strange !== undefined) throw refusal(at, `'${strange}' cannot be enforced here`);
    };
    if ("$ref" in schema) {
      only("$ref");
      const { target, path } = this.#resolve(schema["$ref"], at);
      return this.rule(target, path, within);
    }
    for (const keyword of ["anyOf", "allOf"] as const) {
      if (!(keyword in schema)) continue;
      only(keyword);
      const parts = listOf(schema[keyword], `${at}/${keyword}`);
      if (keyword === "allOf" && parts.length > 1) throw refusal(at, "'allOf' of more than one schema cannot be enforced");
      return parts.map((part, index) => this.rule(part, `${at}/${keyword}/${index}`, within)).join(" | ");
    }
    if ("enum" in schema || "const" in schema) {
      only("enum", "const", "type");
      return literals(schema, at);
    }
    if (asked.length === 0) return "value";
    const types = typesOf(schema, asked, at);
    only("type", ...types.flatMap((type) => KEYWORDS[type]));
    return types.map((type) => this.#ofType(type, schema, at)).join(" | ");
  }

  #ofType(type: TypeName, schema: Keywords, at: string): string {
    if (type === "object") return this.#object(schema, at);
    if (type === "array") return this.#array(schema, at);
    if (type === "string") return this.#string(schema, at);
    if (type === "boolean") return '"true" | "false"';
    if (type === "null") return '"null"';
    return number(type, schema, at);
  }

  #object(schema: Keywords, at: string): string {
    const { properties = {}, required = [], additionalProperties = true } = schema;
    if (!isObject(properties)) throw refusal(`${at}/properties`, "must be an object");
    const needed = listOf(required, `${at}/required`, 0);
    const unlisted = needed.find((name) => typeof name !== "string" || !Object.hasOwn(properties, name));
    if (unlisted !== undefined) throw refusal(`${at}/required`, `${JSON.stringify(unlisted)} is not among the properties`);
    const names = Object.keys(properties);
    if (names.length === 0) {
      if (additionalProperties === false) return '"{" ws "}"';
      const member = `string ":" " "? ${this.rule(additionalProperties, `${at}/additionalProperties`, [])}`;
      return `"{" ws (${member} ("," ws ${member})* ws)? "}"`;
    }
    if (isObject(additionalProperties) && Object.keys(additionalProperties).length > 0) {
      throw refusal(at, "'additionalProperties' with a schema cannot be enforced beside 'properties'");
    }
    const members = names.map((name, index) => {
      const value = this.rule(properties[name], `${at}/properties/${name}`, []);
      const optional = !needed.includes(name);
      return { text: `${literal(JSON.stringify(name))} ":" " "? ${value}`, optional, index };
    });
    // What may follow the property before, and what may come first: each is told from the end.
    let after = '""';
    let first = '""';
    for (const { text, optional } of members.toReversed()) {
      const [later, begins] = [this.#inner(after), this.#inner(first)];
      first = optional ? `${text} ${later} | ${begins}` : `${text} ${later}`;
      after = optional ? `"," ws ${text} ${later} | ${later}` : `"," ws ${text} ${later}`;
    }
    return `"{" ws (${first}) ws "}"`;
  }

  /** A rule of its own for `body`, so that it is written once. */
  #inner(body: string): string {
    if (body === '""') return body;
    const name = `p${this.rules.length}`;
    this.rules.push([name, body]);
    return name;
  }

  #array(schema: Keywords, at: string): string {
    const { items = true, prefixItems = [], uniqueItems = false } = schema;
    if (uniqueItems !== false) throw refusal(at, "'uniqueItems' cannot be enforced");
    const { least, most } = counts(schema, "minItems", "maxItems", at);
    const heads = listOf(prefixItems, `${at}/prefixItems`, 0).slice(0, most);
    const closed = items === false || most <= heads.length;
    if (least > heads.length && closed) throw refusal(at, "no array is that long");
    const rest = closed ? undefined : this.rule(items, `${at}/items`, []);
    // From the last item to the first; what follows an item begins with a comma.
    let tail = '""';
    if (rest !== undefined) {
      const from = Math.max(least - heads.length, 0);
      if (heads.length === 0) tail = `${rest} ("," ws ${rest})${times(Math.max(from - 1, 0), most - 1)}`;
      else tail = `("," ws ${rest})${times(from, most - heads.length)}`;
      if (heads.length === 0 && least === 0) tail = `(${tail} | "")`;
    }
    heads.toReversed().forEach((head, back) => {
      const index = heads.length - 1 - back;
      const item = `${index > 0 ? '"," ws ' : ""}${this.rule(head, `${at}/prefixItems/${index}`, [])} ${this.#inner(tail)}`;
      tail = index < least ? item : `(${item} | "")`;
    });
    return `"[" ws ${tail} ws "]"`;
  }

  #string(schema: Keywords, at: string): string {
    const { format } = schema;
    const { least, most } = counts(schema, "minLength", "maxLength", at);
    if (format === undefined) {
      const long = Math.max(least, most === Infinity ? 0 : most);
      if (long > LONGEST) throw refusal(at, `a length of ${long} cannot be enforced, up to ${LONGEST} can`);
      return `"\\"" ${this.#characters(least, most)}`;
    }
    const known = Object.hasOwn(FORMATS, String(format)) ? FORMATS[String(format)] : undefined;
    if (known === undefined) {
      throw refusal(`${at}/format`, `${JSON.stringify(format)} cannot be enforced; ${Object.keys(FORMATS).join(", ")} can`);
    }
    if (least > 0 || most < Infinity) throw refusal(at, "'format' cannot be enforced beside a length");
    return `"\\"" ${known} "\\""`;
  }

  /** The rule for what is left of a string: `least` to `most` characters and its end. */
  #characters(least: number, most: number): string {
    if (least === 0 && most === Infinity) return "characters";
    const name = `c${least}to${most === Infinity ? "any" : most}`;
    if (this.rules.some(([known]) => known === name)) return name;
    const ways = least === 0 ? ['"\\""'] : [];
    if (most > 0) {
      const rest = this.#characters(Math.max(least - 1, 0), most - 1);
      ways.push(`${CHARACTER} ${rest}`, `escape ${rest}`);
    }
    this.rules.push([name, ways.join(" | ")]);
    return name;
  }

  #resolve(ref: unknown, at: string): { target: unknown; path: string } {
    if (typeof ref !== "string" || !/^#(\/|$)/.test(ref)) throw refusal(`${at}/$ref`, "only references within the schema are known");
    let target: unknown = this.#root;
    for (const part of ref.split("/").slice(1)) {
      const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      const inside: unknown = isObject(target) && Object.hasOwn(target, key) ? target[key] : undefined;
      target = Array.isArray(target) ? target[Number(key)] : inside;
    }
    if (target === undefined) throw refusal(`${at}/$ref`, `there is no '${ref}'`);
    return { target, path: ref };
  }
}

function typesOf(schema: Keywords, asked: readonly string[], at: string): TypeName[] {
  const names = schema["type"] === undefined ? impliedBy(asked) : [schema["type"]].flat();
  const strange = names.find((name) => !Object.hasOwn(KEYWORDS, String(name)));
  if (strange !== undefined) throw refusal(`${at}/type`, `there is no type ${JSON.stringify(strange)}`);
  if (names.length === 0) throw refusal(at, `'${asked[0]}' cannot be enforced`);
  return names as TypeName[];
}

/** Without `type`, values of other types fit as well: leaving those out is no harm. */
function impliedBy(asked: readonly string[]): TypeName[] {
  const found = (Object.keys(KEYWORDS) as TypeName[]).find((type) => KEYWORDS[type].some((keyword) => asked.includes(keyword)));
  return found === undefined ? [] : [found];
}

function literals(schema: Keywords, at: string): string {
  let values = "enum" in schema ? listOf(schema["enum"], `${at}/enum`) : [schema["const"]];
  if ("enum" in schema && "const" in schema) values = values.filter((value) => same(value, schema["const"]));
  if (schema["type"] !== undefined) {
    const types = typesOf(schema, ["type"], at);
    values = values.filter((value) => types.some((type) => isOfType(value, type)));
  }
  if (values.length === 0) throw refusal(at, "no value of 'enum' or 'const' is of its 'type'");
  return values.map((value) => literal(JSON.stringify(value))).join(" | ");
}

function isOfType(value: unknown, type: TypeName): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return isObject(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function number(type: "number" | "integer", schema: Keywords, at: string): string {
  const low = narrower(bound(schema, "minimum", at), bound(schema, "exclusiveMinimum", at), 1);
  const high = narrower(bound(schema, "maximum", at), bound(schema, "exclusiveMaximum", at), -1);
  if (low === undefined && high === undefined) return type;
  if (type === "number") {
    const broken = [low, high].find((limit) => limit !== undefined && !Number.isSafeInteger(limit.value));
    if (broken) throw refusal(at, `numbers up to ${broken.value} cannot be told by their digits; whole limits can`);
  }
  const found = type === "integer" ? integersWithin(low, high) : decimalsWithin(low, high);
  if (found === undefined) throw refusal(at, "no number is within these limits");
  return found;
}

function bound(schema: Keywords, keyword: string, at: string): Bound | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (typeof value !== "number") throw refusal(`${at}/${keyword}`, "must be a number");
  return { value, exclusive: keyword.startsWith("exclusive") };
}

/** The one that leaves less; `sign` is 1 for lower limits. */
function narrower(plain: Bound | undefined, exclusive: Bound | undefined, sign: number): Bound | undefined {
  if (plain === undefined || exclusive === undefined) return plain ?? exclusive;
  return sign * (plain.value - exclusive.value) > 0 ? plain : exclusive;
}

function counts(schema: Keywords, low: string, high: string, at: string): { least: number; most: number } {
  const { [low]: least = 0, [high]: most = Infinity } = schema as Record<string, number>;
  const wrong = [least, most].find((count) => count !== Infinity && !(Number.isSafeInteger(count) && count >= 0));
  if (wrong !== undefined || least > most) throw refusal(at, `nothing has '${low}' ${least} and '${high}' ${most}`);
  return { least, most };
}

function times(least: number, most: number): string {
  return most === Infinity ? (least === 0 ? "*" : `{${least},}`) : `{${least},${most}}`;
}

/** `text`, of JSON, as EBNF has it. */
function literal(text: string): string {
  return `"${text.replaceAll(/[\\"]/g, "\\$&")}"`;
}

function listOf(value: unknown, at: string, least = 1): readonly unknown[] {
  if (!Array.isArray(value) || value.length < least) throw refusal(at, "must be a list that is not empty");
  return value;
}

function isObject(value: unknown): value is Keywords {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function refusal(at: string, why: string): TabwrightError {
  return new TabwrightError("schema-unsupported", `the schema's ${at}: ${why}`);
}
