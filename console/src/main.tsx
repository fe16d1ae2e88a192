// main: the frame of the page: which view, which database, whose token, light or dark.
import { render } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { go, keep, useAddress, write } from "./address";
import { json, keepToken, Problem, token } from "./api";
import { type Contract, fetchContract } from "./contract";
import { type Right, type Shared, SharedContext } from "./state";
import { Choice, Failure, Field, Text } from "./ui";
import { Browse } from "./views/browse";
import { Calls } from "./views/calls";
import { Charts } from "./views/charts";
import { Learn } from "./views/learn";
import { Manage } from "./views/manage";
import { Model } from "./views/model";
import { Start } from "./views/start";
import { Tour } from "./tour";
import "uplot/dist/uPlot.min.css";
import "./style.css";

const VIEWS: { [name: string]: [string, () => any] } = {
  start: ["Start", Start],
  browse: ["Browse", Browse],
  model: ["Model", Model],
  learn: ["Learn", Learn],
  calls: ["Calls", Calls],
  charts: ["Charts", Charts],
  manage: ["Database", Manage],
};

/** Of a database. The address may come from anybody, and a name stands in paths and in commands to copy. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

const THEMES: [string, string][] = [
  ["", "as the system"],
  ["light", "light"],
  ["dark", "dark"],
];

interface Known {
  databases: string[];
  right: Right;
  version: string;
  contract: Contract | null;
}

function Theme() {
  const [theme, set] = useState(localStorage.getItem("cheetah-theme") ?? "");
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("cheetah-theme", theme);
  }, [theme]);
  return <Choice label="Colours" value={theme} set={set} options={THEMES} />;
}

function TokenForm({ apply, wanted }: { apply: (text: string) => void; wanted: boolean }) {
  const [text, set] = useState(token());
  return (
    <form
      class="inline"
      onSubmit={(event) => {
        event.preventDefault();
        apply(text.trim());
      }}
    >
      <Field label="Token" hint="kept until this tab is closed">
        <Text type="password" value={text} set={set} autocomplete="off" aria-invalid={wanted} />
      </Field>
      <button type="submit" class="primary">
        Use this token
      </button>
    </form>
  );
}

function App() {
  const address = useAddress();
  const [known, setKnown] = useState<Known | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [said, say] = useState("");
  const [tokenOpen, setTokenOpen] = useState(false);
  const main = useRef<HTMLElement>(null);
  const version = useRef("");

  const refresh = useCallback(async () => {
    try {
      if (!version.current) version.current = (await json("GET", "/version")).version;
      const access = await json("GET", "/access");
      const listed = await json("GET", "/databases");
      setKnown((old) => ({ databases: listed.databases, right: access.right, version: version.current, contract: old?.contract ?? null }));
      setError(null);
      const contract = await fetchContract();
      setKnown((old) => old && { ...old, contract: old.contract ?? contract });
    } catch (problem) {
      setError(problem);
      if (problem instanceof Problem && problem.status === 401) {
        setKnown(null);
        setTokenOpen(true);
      }
    }
  }, []);
  useEffect(() => {
    refresh();
  }, []);

  const db = (NAME.test(address.params.db ?? "") && address.params.db) || (known && !known.databases.includes("default") ? (known.databases[0] ?? "default") : "default");
  const [title, View] = Object.keys(VIEWS).includes(address.view) ? VIEWS[address.view] : VIEWS.start;
  useEffect(() => {
    document.title = `${title} - ${db} - cheetah-db`;
  }, [title, db]);

  const shared: Shared | null = useMemo(() => known && { ...known, db, refresh, say }, [known, db]);
  const databases = known ? (known.databases.includes(db) ? known.databases : [...known.databases, db]) : [];
  const apply = (text: string) => {
    keepToken(text);
    setKnown(null);
    setTokenOpen(false);
    refresh();
  };

  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        To the content
      </a>
      <header>
        <h1>
          <img src="/console/icon.svg" alt="" width="24" height="24" /> cheetah-db {known && <small>{known.version}</small>}
        </h1>
        <nav aria-label="Views">
          {known &&
            Object.entries(VIEWS).map(([name, [text]]) => (
              <a key={name} href={write({ view: name, params: keep(address) })} aria-current={title === text ? "page" : undefined}>
                {text}
              </a>
            ))}
        </nav>
        <div class="tools">
          {known && (
            <Field label="Database">
              <Choice value={db} set={(name) => go({ view: address.view, params: { ...keep(address), db: name } })} options={databases} />
            </Field>
          )}
          <button type="button" aria-expanded={tokenOpen} onClick={() => setTokenOpen(!tokenOpen)}>
            Token{known ? ": " + known.right : ""}
          </button>
          <Theme />
        </div>
      </header>
      {tokenOpen && (
        <section class="token" aria-label="Access">
          <TokenForm apply={apply} wanted={error instanceof Problem && error.status === 401} />
        </section>
      )}
      <main id="main" ref={main} tabIndex={-1}>
        <Failure error={error} />
        {shared ? (
          <SharedContext.Provider value={shared}>
            <h2 class="title">{title}</h2>
            <View key={[address.view, db, address.params.tour ?? ""].join("/")} />
            {address.params.tour && <Tour step={Number(address.params.tour)} />}
          </SharedContext.Provider>
        ) : (
          !error && <p class="quiet">Asking the server…</p>
        )}
      </main>
      <div class="said" role="status" aria-live="polite">
        {said}
      </div>
    </>
  );
}

render(<App />, document.getElementById("app")!);
