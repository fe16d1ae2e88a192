// tour: five steps through the sample, each a view with something in it to look at.
import { go, useAddress, write } from "./address";
import { useShared } from "./state";
import { hasWords } from "./words";

interface Step {
  title: string;
  text: string;
  view: string;
  params: { [name: string]: string };
}

const db = "sample";
const stepsOf = (words: boolean): Step[] => [
  { title: "Names", text: "Names are byte strings, kept in order. Grouped by their colons, with how many lie below each; choose a group to go into it.", view: "browse", params: { db, by: ":" } },
  { title: "Values", text: "A value is bytes: text, JSON, or a payload of the statistics, which is shown decoded. This one counts what follows nothing: each token.", view: "browse", params: { db, by: ":", prefix: "cnt:1:", name: "cnt:1:__root__" } },
  { title: "What comes next", text: "The deepest context that was seen answers. Choose a candidate to go on with it, or ask for all levels.", view: "model", params: { db, q: words ? "tyger" : "2 4", mode: "deepest" } },
  { title: "How likely a text is", text: `Each ${words ? "word" : "token"} is coloured by its probability, and says at which order it was found.`, view: "model", params: { db, q: words ? "tyger tyger burning bright in the night" : "2 4 5 6 7 8 9", do: "score" } },
  { title: "Every call", text: "What this page does, you can do: each call of the contract as a form, as curl and as Python. This one streams names.", view: "calls", params: { db, op: "scanPairs", "p.pair": "greeting:", "p.values": "true" } },
];

const addressOf = (steps: Step[], step: number) => ({ view: steps[step - 1].view, params: { ...steps[step - 1].params, tour: String(step) } });
export const begin = (words: boolean) => go(addressOf(stepsOf(words), 1));

export function Tour({ step }: { step: number }) {
  const now = useAddress();
  const words = hasWords(useShared());
  const steps = stepsOf(words);
  const at = steps[step - 1];
  const address = (to: number) => addressOf(steps, to);
  if (!at) return null;
  const { tour: _, ...rest } = now.params;
  return (
    <aside class="tour" aria-label="Tour">
      <p>
        <strong>
          Step {step} of {steps.length}: {at.title}.
        </strong>{" "}
        {at.text}
      </p>
      <p class="buttons">
        {step > 1 && (
          <a class="button" href={write(address(step - 1))}>
            Back
          </a>
        )}
        {step < steps.length && (
          <a class="button primary" href={write(address(step + 1))}>
            Next step
          </a>
        )}
        <a class="button" href={write({ view: now.view, params: rest })}>
          End the tour
        </a>
      </p>
    </aside>
  );
}
