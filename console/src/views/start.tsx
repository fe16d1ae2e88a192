// start: what is here, the sample, the tour.
import { useEffect, useState } from "preact/hooks";
import { keep, useAddress, write } from "../address";
import { json } from "../api";
import { number, size } from "../bytes";
import { loadSample, SAMPLE } from "../sample";
import { may, useShared } from "../state";
import { Failure, useTask } from "../ui";
import { begin } from "../tour";
import { hasWords } from "../words";

export function Start() {
  const shared = useShared();
  const address = useAddress();
  const [about, set] = useState<any>(null);
  const look = useTask();
  const load = useTask();
  const [done, setDone] = useState("");
  const there = shared.databases.includes(SAMPLE);
  useEffect(() => {
    look.run(async (signal) => set(await json("GET", "/databases/" + shared.db, { signal })));
  }, [shared.db]);
  const link = (view: string, text: string) => <a href={write({ view, params: keep(address) })}>{text}</a>;
  return (
    <>
      <Failure error={look.error} />
      {about && (
        <dl class="figures">
          <div>
            <dt>Pairs</dt>
            <dd>{number(about.pairs)}</dd>
          </div>
          <div>
            <dt>Values</dt>
            <dd>{number(about.values)}</dd>
          </div>
          <div>
            <dt>Bytes of values</dt>
            <dd>{size(about.value_bytes)}</dd>
          </div>
          <div>
            <dt>Files</dt>
            <dd>{size(about.file_bytes)}</dd>
          </div>
        </dl>
      )}
      <div class="cards">
        <section class="panel">
          <h3>The sample</h3>
          <p>A small text, counted and smoothed, with some names and values beside it, in a database of its own called {SAMPLE}.</p>
          <Failure error={load.error} />
          <p class="buttons">
            {may(shared, "write") && !there && (
              <button
                type="button"
                class="primary"
                disabled={load.busy}
                onClick={() =>
                  load.run(async (signal) => {
                    await loadSample(hasWords(shared), setDone, signal);
                    await shared.refresh();
                    shared.say("the sample is loaded");
                  })
                }
              >
                Load the sample
              </button>
            )}
            {there && (
              <button type="button" class="primary" onClick={() => begin(hasWords(shared))}>
                Begin the tour
              </button>
            )}
          </p>
          {load.busy && <p class="quiet">{done}…</p>}
          {there && <p class="quiet">It is there. The tour shows it in five steps.</p>}
          {!there && !may(shared, "write") && <p class="quiet">It is not loaded, and this token only reads.</p>}
        </section>
        <section class="panel">
          <h3>Look around</h3>
          <ul>
            <li>{link("browse", "Browse")} the names and values</li>
            <li>{link("model", "Ask the model")} what comes next, and how likely a text is</li>
            {may(shared, "write") && <li>{link("learn", "Count and smooth")} documents</li>}
            <li>{link("calls", "Every call")} of the contract as a form</li>
            <li>{link("charts", "Charts")} of what the server does now</li>
            <li>{link("manage", "The database")}: its sizes and shards</li>
          </ul>
        </section>
      </div>
    </>
  );
}
