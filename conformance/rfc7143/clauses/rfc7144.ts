/** RFC 7144: see account.ts. */
import { beside, initiator, rows, type Accounts } from './account.js';

export const rfc7144: Accounts = {
  '2.1': [beside(5, 'names the words of obligation')],
  '4.1': [rows(1, 'TMF-34'), rows(1, 'TMF-30', 'TMF-31', 'TMF-32', 'TMF-33')],
  '4.2': [rows(1, 'FIELD-10')],
  '5.1.1': [initiator(1, 'no priority below protocol level 2'), rows(1, 'CMD-35')],
  '5.2.1': [rows(1, 'FIELD-12'), initiator(1, 'ignores the qualifier below protocol level 2')],
  '5.2.2': [beside(2, 'repeats RFC 7143 §11.4.7')],
  '6.3': [
    initiator(2, 'no new function below protocol level 2; takes all new responses'),
    rows(1, 'TMF-30', 'TMF-31', 'TMF-32', 'TMF-33'),
    rows(1, 'TMF-32'),
    initiator(3, 'RefCmdSN, and the connection of a QUERY TASK'),
    rows(2, 'FIELD-01'),
    rows(4, 'TMF-32'),
  ],
  '6.3.2': [initiator(1, 'the reserved tag where none is referenced')],
  '6.3.3': [initiator(2, 'RefCmdSN')],
  '6.4.2': [initiator(1, 'takes the response Function succeeded')],
  '6.5': [rows(1, 'TMF-32')],
  '7.1.1': [rows(1, 'TMF-34')],
};
