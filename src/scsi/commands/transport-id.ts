/** iSCSI TransportIDs (SPC-6 §7.6.4.6): initiator ports by name, in persistent reservations. */
import { getU16, putU16 } from '../bytes.js';

const FORMAT_AND_PROTOCOL = { DEVICE: 0x05, PORT: 0x45 } as const;
const NAME_BYTES_MAX = 300;

/** The TransportID of an initiator port name. */
export function transportId(initiatorPort: string): Buffer {
  const name = Buffer.from(initiatorPort);
  const bytes = Math.max(20, Math.ceil((name.length + 1) / 4) * 4);
  const id = Buffer.alloc(4 + bytes);
  id[0] = initiatorPort.includes(',i,0x') ? FORMAT_AND_PROTOCOL.PORT : FORMAT_AND_PROTOCOL.DEVICE;
  putU16(id, 2, bytes);
  name.copy(id, 4);
  return id;
}

/** Initiator port names of a list of TransportIDs, or undefined if the list is damaged or of another protocol. */
export function parseTransportIds(list: Buffer, listBytes: number): string[] | undefined {
  if (listBytes > list.length || listBytes === 0) return undefined;
  const names: string[] = [];
  let at = 0;
  while (at < listBytes) {
    const header = list[at];
    const bytes = getU16(list, at + 2);
    if (header !== FORMAT_AND_PROTOCOL.DEVICE && header !== FORMAT_AND_PROTOCOL.PORT) return undefined;
    if (bytes > NAME_BYTES_MAX || at + 4 + bytes > listBytes) return undefined;
    const text = list.toString('utf8', at + 4, at + 4 + bytes);
    const end = text.indexOf('\0');
    const name = end < 0 ? text : text.slice(0, end);
    if (name.length === 0 || (header === FORMAT_AND_PROTOCOL.PORT) !== name.includes(',i,0x'))
      return undefined;
    names.push(name);
    at += 4 + bytes;
  }
  return names;
}
