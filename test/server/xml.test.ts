/** XML that clients send: what is taken, and what a kept piece of it says elsewhere. */
import { describe, expect, test } from 'vitest'
import {
  childrenOf,
  elementXml,
  innerXml,
  nameOf,
  parseXml,
  textOf,
  type XmlElement,
} from '../../server/http/xml.ts'

const nested = (depth: number): string => '<a>'.repeat(depth) + '</a>'.repeat(depth)

describe('refused', () => {
  test.each([
    ['nothing', ''],
    ['text', 'text'],
    ['an unclosed element', '<a>'],
    ['two roots', '<a/><b/>'],
    ['an unbound prefix', '<p:a/>'],
    ['an unbound prefix of an attribute', '<a p:b=""/>'],
    ['a prefix bound to nothing', '<D:a xmlns:D="DAV:"><p:b xmlns:p=""/></D:a>'],
    ['a namespace with a space', '<p:a xmlns:p="a b"/>'],
    ['a namespace with a brace, within', '<a><b xmlns="a}b"/></a>'],
    ['a namespace with markup', '<a xmlns="&lt;b>"/>'],
    ['an attribute twice', '<a b="" b=""/>'],
    ['an attribute twice by its namespace', '<a xmlns:p="urn:x" xmlns:q="urn:x" p:b="" q:b=""/>'],
    ['an unknown entity', '<a>&unknown;</a>'],
    ['a document type', '<!DOCTYPE a><a/>'],
    ['an entity of a document type', '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'],
    ['a character that XML has not', '<a>\u0001</a>'],
    ['elements too deep', nested(101)],
  ])('%s', (_, xml) => {
    expect(() => parseXml(xml)).toThrow(expect.objectContaining({ code: 'invalid-request' }))
  })
})

test('a hundred levels are taken', () => {
  expect(childrenOf(parseXml(nested(100)))).toHaveLength(1)
})

/** What an element means: names by namespace, attributes without declarations, language in scope, text. */
function meaning(element: XmlElement): unknown {
  const attributes = element.attributes.filter(({ written }) => !/^xmlns(:|$)|^xml:lang$/.test(written))
  const content = element.content.map((piece) => (typeof piece === 'string' ? piece : meaning(piece)))
  return [nameOf(element), element.language ?? '', attributes.map(({ value }) => value), content]
}

describe('an element that is kept', () => {
  test.each([
    '<D:w xmlns:D="DAV:"><D:p/></D:w>',
    '<w xmlns="DAV:"><p xmlns="urn:x">text &amp; &lt;more&gt; &quot;\u00e4\u{1f600}</p></w>',
    '<w xmlns="DAV:"><p xmlns=""><inner/></p></w>',
    '<w><p/></w>',
    '<w xmlns:a="urn:a" xml:lang="de"><a:p><a:q xmlns:a="urn:b" a:r="1" s="2"/></a:p></w>',
    '<w xml:lang="de"><p xml:lang="en"><q/></p></w>',
    '<w><p a="x&#10;y&#9;&quot;&amp;"> \n <![CDATA[<raw> & ]]> </p></w>',
    '<w xmlns:x="urn:x"><x:p>in <x:b>mixed</x:b> content<!-- no comment --></x:p></w>',
    '<w><p>line&#13;end</p></w>',
  ])('means the same elsewhere: %s', (xml) => {
    const [kept] = childrenOf(parseXml(xml)) as [XmlElement]
    const around = `<D:prop xmlns:D="DAV:" xmlns="urn:around">${elementXml(kept)}</D:prop>`
    const [again] = childrenOf(parseXml(around)) as [XmlElement]
    expect(meaning(again)).toEqual(meaning(kept))
    expect(
      meaning(childrenOf(parseXml(`<D:o xmlns:D="DAV:">${innerXml(parseXml(xml))}</D:o>`))[0] as never),
    ).toEqual(meaning(kept))
  })

  test('its text is what is directly in it', () => {
    expect(textOf(parseXml('<a>one<b>two</b><![CDATA[three]]></a>'))).toBe('onethree')
  })
})
