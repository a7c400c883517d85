/** Charts that are read on a light and on a dark page: no background, and the text's colour follows the reader's choice. */
import { init } from 'echarts'

export interface BarChart {
  readonly title: string
  /** Groups of bars, from top to bottom. */
  readonly groups: readonly string[]
  /** One value a group; undefined leaves the place empty. */
  readonly series: readonly { readonly name: string; readonly values: readonly (number | undefined)[] }[]
  /** What stands at the end of a bar. */
  readonly label: (value: number) => string
  readonly axis?: 'value' | 'log'
}

const colours = ['#1f8a70', '#d9822b', '#4c78c8', '#9b6bb3', '#8a8f98']
const style = `<style>
text { fill: #24292f; stroke: none }
@media (prefers-color-scheme: dark) { text { fill: #d7dde4 } }
</style>`

export function drawBars({ title, groups, series, label, axis = 'value' }: BarChart): string {
  const bars = groups.length * series.length
  const height = 90 + 16 * bars + 14 * groups.length
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: 760, height })
  const grey = '#8a8f98'
  chart.setOption({
    animation: false,
    color: colours,
    title: { text: title, left: 0, textStyle: { fontSize: 15 } },
    legend: { bottom: 0, left: 0, itemWidth: 14, itemGap: 28 },
    grid: { left: 190, right: 60, top: 36, bottom: 60 },
    xAxis: {
      type: axis,
      axisLabel: { formatter: (value: number) => label(value) },
      splitLine: { lineStyle: { color: grey, opacity: 0.3 } },
    },
    yAxis: { type: 'category', data: [...groups], inverse: true, axisTick: { show: false } },
    series: series.map(({ name, values }) => ({
      name,
      type: 'bar',
      barGap: '10%',
      barCategoryGap: '24%',
      data: values.map((value) => value ?? '-'),
      label: {
        show: true,
        position: 'right',
        formatter: ({ value }: { value: unknown }) => (typeof value === 'number' ? label(value) : ''),
      },
    })),
  })
  const svg = chart.renderToSVGString()
  // Without this its timers keep the process alive.
  chart.dispose()
  return `${svg.replace('>', `>\n${style}`)}\n`
}
