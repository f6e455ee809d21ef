/** Counts the words of obligation in the text of an RFC: where counts.ts is from. */

/** MUST NOT and SHALL NOT count once each. */
const WORDS = /\b(?:MUST|SHALL|REQUIRED)\b/g;
/** Headings stand at the margin: "4.2.  iSCSI Concepts", "Appendix B.  Login Phase Examples". */
const HEADING = /^(?:Appendix )?(\d+(?:\.\d+)*|[A-Z](?:\.\d+)*)\.\s+\S/;

/**
 * Words of obligation by section, those of its subsections not included; sections without any are left out.
 * @param text the RFC as its editor publishes it, as plain text or as HTML of one page
 */
export function countWords(text: string): Record<string, number> {
  const counts: Record<string, number> = {};
  let section = '';
  for (const line of text.replaceAll(/<[^>]+>/g, '').split('\n')) {
    const heading = HEADING.exec(line);
    if (heading !== null) section = heading[1] ?? '';
    const words = line.match(WORDS)?.length ?? 0;
    if (words > 0) counts[section] = (counts[section] ?? 0) + words;
  }
  return counts;
}
