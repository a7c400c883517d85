/** Reads Prometheus' text format, version 0.0.4, and throws at whatever it does not allow. */

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly type: string
  readonly help: string
  readonly samples: Sample[]
}

const sampleLine =
  /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (NaN|[+-]?Inf|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?)(?: -?[0-9]+)?$/
const labelPair = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"/g
const types = ['counter', 'gauge', 'histogram', 'summary', 'untyped']

/** The families by name, in order. */
export function parseExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  const families = new Map<string, Family>()
  const seen = new Set<string>()
  let help: [string, string] | undefined
  let current: [string, Family] | undefined
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line) ?? []
    if (keyword === 'HELP') help = [name, rest]
    else if (keyword === 'TYPE') {
      if (!types.includes(rest)) throw new Error(`no such type: ${line}`)
      if (families.has(name)) throw new Error(`a family stands twice: ${line}`)
      current = [name, { type: rest, help: help?.[0] === name ? help[1] : '', samples: [] }]
      families.set(...current)
    } else {
      const sample = parseSample(line)
      const own = current !== undefined && baseNames(...current).includes(sample.name)
      if (!own || current === undefined) throw new Error(`a sample outside of its family: ${line}`)
      const key = `${sample.name} ${JSON.stringify(Object.entries(sample.labels).sort())}`
      if (seen.has(key)) throw new Error(`a sample stands twice: ${line}`)
      seen.add(key)
      current[1].samples.push(sample)
    }
  }
  return families
}

function baseNames(name: string, { type }: Family): string[] {
  if (type === 'histogram') return ['_bucket', '_sum', '_count'].map((suffix) => name + suffix)
  return type === 'summary' ? [name, `${name}_sum`, `${name}_count`] : [name]
}

function parseSample(line: string): Sample {
  const match = sampleLine.exec(line)
  if (match === null) throw new Error(`no sample: ${line}`)
  const [, name = '', labelText = '', number = ''] = match
  const labels: Record<string, string> = {}
  for (const [, label = '', value = ''] of labelText.matchAll(labelPair)) {
    if (label in labels) throw new Error(`a label stands twice: ${line}`)
    labels[label] = value.replace(/\\(["\\n])/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped))
  }
  return { name, labels, value: Number(number.replace('Inf', 'Infinity')) }
}
