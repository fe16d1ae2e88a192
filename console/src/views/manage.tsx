// manage: one database: its sizes and shards, checkpoint, backup, dropping it; and making another.
import { useEffect, useState } from "preact/hooks";
import { go } from "../address";
import { call, json, Problem, token } from "../api";
import { number, size } from "../bytes";
import { may, useShared } from "../state";
import { Choice, Dialog, download, Failure, Field, Text, useTask } from "../ui";

const BACKUP_IN_MEMORY = 1 << 30;

function Facts({ about }: { about: any }) {
  return (
    <>
      <dl class="figures">
        {[
          ["Pairs", number(about.pairs)],
          ["Values", number(about.values)],
          ["Bytes of values", size(about.value_bytes)],
          ["Files", size(about.file_bytes)],
          ["Changed in memory", size(about.dirty_bytes)],
          ["Log", size(about.log.bytes)],
          ["Writes", about.read_only ? "refused" : "taken"],
        ].map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <details>
        <summary>Shards ({about.shards.length})</summary>
        <table>
          <thead>
            <tr>
              {["shard", "directory", "pairs", "values", "bytes", "files"].map((text) => (
                <th key={text} scope="col">
                  {text}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {about.shards.map((one: any) => (
              <tr key={one.shard}>
                <td>{one.shard}</td>
                <td>{one.directory ?? ""}</td>
                <td>{number(one.pairs)}</td>
                <td>{number(one.values)}</td>
                <td>{size(one.value_bytes)}</td>
                <td>{size(one.file_bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </>
  );
}

function Drop({ name, close, gone }: { name: string; close: () => void; gone: () => void }) {
  const task = useTask();
  const [typed, setTyped] = useState("");
  return (
    <Dialog title={"Drop the database " + name + "?"} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (typed !== name) return;
          task.run(async (signal) => {
            await json("DELETE", "/databases/" + name, { params: { confirm: typed }, signal });
            gone();
          });
        }}
      >
        <p>Everything in it is deleted, with its files, for everybody. There is no way back.</p>
        <Field label="Type its name to go on" wide>
          <Text value={typed} set={setTyped} />
        </Field>
        <Failure error={task.error} />
        <p class="buttons">
          <button type="submit" class="danger" disabled={typed !== name || task.busy}>
            Drop it
          </button>
          <button type="button" onClick={close}>
            Keep it
          </button>
        </p>
      </form>
    </Dialog>
  );
}

type Saver = { write: (part: Uint8Array) => Promise<void>; close: () => Promise<void>; abort: () => Promise<void> };

/** Where the bytes of a backup go: a file, if the browser can write one piece by piece, else memory and then a download. */
async function target(name: string): Promise<Saver> {
  const picker = (window as any).showSaveFilePicker;
  if (picker) {
    const file = await (await picker({ suggestedName: name })).createWritable();
    return { write: (part) => file.write(part), close: () => file.close(), abort: () => file.abort() };
  }
  const parts: Uint8Array[] = [];
  let kept = 0;
  return {
    write: async (part) => {
      kept += part.length;
      if (kept > BACKUP_IN_MEMORY) throw new Problem(0, "too_large_here", "this browser keeps a download in memory until it is whole, and this one is over 1 GiB: use cheetah-db backup");
      parts.push(part);
    },
    close: async () => download(new Blob(parts as BlobPart[]), name),
    abort: async () => undefined,
  };
}

function Backup() {
  const shared = useShared();
  const task = useTask();
  const [got, setGot] = useState(0);
  const [done, setDone] = useState("");
  const path = "/databases/" + shared.db + "/backup";
  const name = shared.db + ".backup";
  const run = () =>
    task.run(async (signal) => {
      setGot(0);
      setDone("");
      const saver = await target(name);
      try {
        const answer = await call("GET", path, { signal });
        const reader = answer.body!.getReader();
        let tail = new Uint8Array();
        let sum = 0;
        for (;;) {
          const part = await reader.read().catch((error) => {
            if (signal.aborted) throw error;
            throw new Problem(0, "cut_off", "the backup broke off before its end: it is worth nothing, and was not kept");
          });
          if (part.done) break;
          await saver.write(part.value);
          sum += part.value.length;
          tail = new Uint8Array([...tail.subarray(Math.max(0, tail.length - 512)), ...part.value.subarray(Math.max(0, part.value.length - 512))]);
          setGot(sum);
        }
        const last = new TextDecoder().decode(tail).match(/\{"error":(\{.*\})\}\s*$/);
        if (last) {
          const problem = JSON.parse(last[1]);
          throw new Problem(problem.status, problem.code, problem.detail);
        }
        await saver.close();
        setDone(`${name}: ${size(sum)}`);
        shared.say("the backup is saved");
      } catch (error) {
        await saver.abort();
        throw error;
      }
    });
  return (
    <section class="panel">
      <h3>Backup</h3>
      <p class="quiet">A consistent copy of this moment; reads and writes go on. cheetah-db restore makes a database of it.</p>
      <Failure error={task.error} />
      <p class="buttons">
        <button type="button" onClick={run} disabled={task.busy}>
          Download a backup
        </button>
        {task.busy && (
          <button type="button" onClick={task.stop}>
            Cancel
          </button>
        )}
      </p>
      {task.busy && (
        <p class="quiet" role="status">
          {size(got)} so far…
        </p>
      )}
      {done && <p role="status">{done}</p>}
      {token() === "" && <p class="quiet">It can be had from a shell, too: curl -o {name} {location.origin + path}</p>}
    </section>
  );
}

function Create() {
  const shared = useShared();
  const task = useTask();
  const [name, setName] = useState("");
  const [shards, setShards] = useState("");
  const [order, setOrder] = useState("");
  const [bos, setBos] = useState("2");
  const [eos, setEos] = useState("3");
  const body = () => ({ ...(shards ? { shards: Number(shards) } : {}), ...(order ? { live: { order: Number(order), bos: Number(bos), eos: eos === "" ? null : Number(eos) } } : {}) });
  return (
    <section class="panel">
      <h3>Another database</h3>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          task.run(async (signal) => {
            await json("PUT", "/databases/" + encodeURIComponent(name), { body: JSON.stringify(body()), type: "application/json", signal });
            await shared.refresh();
            shared.say("created");
            go({ view: "manage", params: { db: name } });
          });
        }}
      >
        <Field label="Name" hint="letters, digits, _ and -">
          <Text value={name} set={setName} required pattern="[A-Za-z0-9][A-Za-z0-9_\-]{0,63}" />
        </Field>
        <Field label="Shards" hint="empty: as usual">
          <Text type="number" min="1" max="256" value={shards} set={setShards} />
        </Field>
        <Field label="Live model" hint="kept in step with each count">
          <Choice value={order} set={setOrder} options={[["", "none"], ...["1", "2", "3", "4", "5", "6", "7", "8"].map((n): [string, string] => [n, "of order " + n])]} />
        </Field>
        {order && (
          <>
            <Field label="Token of the begin">
              <Text type="number" min="0" max="4294967295" required value={bos} set={setBos} />
            </Field>
            <Field label="Token of the end" hint="empty: none">
              <Text type="number" min="0" max="4294967295" value={eos} set={setEos} />
            </Field>
          </>
        )}
        <button type="submit" class="primary" disabled={task.busy || name === ""}>
          Create
        </button>
      </form>
      <Failure error={task.error} />
    </section>
  );
}

function Restore() {
  const shared = useShared();
  const task = useTask();
  const [name, setName] = useState("");
  const [file, setFile] = useState<File | null>(null);
  return (
    <section class="panel">
      <h3>Restore</h3>
      <p class="quiet">Makes a database of a backup's file. It appears when all of it is there and was found whole.</p>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          task.run(async (signal) => {
            if (shared.databases.includes(name)) throw new Problem(409, "database_exists", name + " is there already");
            await json("PUT", "/databases/" + encodeURIComponent(name) + "/restore", { body: file!, type: "application/octet-stream", signal });
            await shared.refresh();
            shared.say("restored");
            go({ view: "manage", params: { db: name } });
          });
        }}
      >
        <Field label="Backup">
          <input type="file" required onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
        </Field>
        <Field label="Name of the new database">
          <Text value={name} set={setName} required pattern="[A-Za-z0-9][A-Za-z0-9_\-]{0,63}" />
        </Field>
        <button type="submit" class="primary" disabled={task.busy || name === "" || !file}>
          Restore
        </button>
        {task.busy && (
          <button type="button" onClick={task.stop}>
            Cancel
          </button>
        )}
      </form>
      {task.busy && <p role="status">Sending it, and checking every page…</p>}
      <Failure error={task.error} />
    </section>
  );
}

export function Manage() {
  const shared = useShared();
  const [about, set] = useState<any>(null);
  const [dropping, setDropping] = useState(false);
  const look = useTask();
  const check = useTask();
  const [checked, setChecked] = useState("");
  const load = () => look.run(async (signal) => set(await json("GET", "/databases/" + shared.db, { signal })));
  useEffect(() => {
    load();
  }, [shared.db]);
  const admin = may(shared, "admin");
  return (
    <>
      <section class="panel" aria-label="Figures">
        <h3>{shared.db}</h3>
        <Failure error={look.error} />
        {about && <Facts about={about} />}
        <p class="buttons">
          <button type="button" onClick={load} disabled={look.busy}>
            Read again
          </button>
        </p>
      </section>
      {admin && (
        <div class="cards">
          <section class="panel">
            <h3>Checkpoint</h3>
            <p class="quiet">Writes everything to its place and empties the log; the next start is quicker.</p>
            <Failure error={check.error} />
            <p class="buttons">
              <button
                type="button"
                disabled={check.busy}
                onClick={() =>
                  check.run(async (signal) => {
                    setChecked("");
                    const began = performance.now();
                    await json("POST", "/databases/" + shared.db + "/checkpoint", { signal });
                    setChecked(`Done in ${((performance.now() - began) / 1000).toFixed(2)} s.`);
                    load();
                  })
                }
              >
                Take a checkpoint
              </button>
            </p>
            {checked && <p role="status">{checked}</p>}
          </section>
          <Backup />
          <Create />
          {shared.contract?.find("restoreDatabase") && <Restore />}
          <section class="panel">
            <h3>Drop</h3>
            <p class="quiet">Deletes the database and its files.</p>
            <p class="buttons">
              <button type="button" class="danger" onClick={() => setDropping(true)}>
                Drop this database
              </button>
            </p>
          </section>
        </div>
      )}
      {dropping && (
        <Drop
          name={shared.db}
          close={() => setDropping(false)}
          gone={() => {
            setDropping(false);
            shared.say("dropped");
            shared.refresh();
            go({ view: "start", params: {} });
          }}
        />
      )}
    </>
  );
}
