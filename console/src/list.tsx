// list: a list of any length, of which only what is seen is in the page. Browsers do not draw elements that are many millions of pixels
// high, so a long list's height is a part of its rows' and each place of the scroll bar stands for a row.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const ROW = 34;
const MOST = 8_000_000;

export interface ListProps {
  label: string;
  count: number;
  /** Is there more after the last one? Then `more` is called when the end comes near. */
  open: boolean;
  more: () => void;
  chosen: number;
  choose: (index: number) => void;
  row: (index: number) => ComponentChildren;
  empty: ComponentChildren;
}

export function List(props: ListProps) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(480);
  const [active, setActive] = useState(0);
  const full = props.count * ROW;
  const shown = Math.min(full, MOST);
  const scroll = Math.max(1, shown - height);
  const exact = full <= MOST ? top / ROW : (Math.min(top, scroll) / scroll) * Math.max(0, props.count - height / ROW); // a part of a row, too
  const first = Math.floor(exact);
  const visible = Math.ceil(height / ROW) + 1;
  const from = Math.max(0, first - 8);
  const to = Math.min(props.count, first + visible + 8);

  useLayoutEffect(() => {
    const element = box.current!;
    const measure = () => setHeight(element.clientHeight || 480);
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    if (props.open && to >= props.count - 200) props.more();
  }, [to, props.count, props.open]);

  useEffect(() => {
    if (active >= props.count) setActive(Math.max(0, props.count - 1));
  }, [props.count]);

  const bring = (index: number) => {
    const element = box.current!;
    if (index >= first + 1 && index < first + visible - 2) return;
    const wanted = Math.max(0, index - Math.floor(visible / 2));
    element.scrollTop = full <= MOST ? (index < first ? index * ROW : Math.max(0, (index + 1) * ROW - height)) : (wanted / Math.max(1, props.count - height / ROW)) * scroll;
  };
  const move = (index: number) => {
    const wanted = Math.max(0, Math.min(props.count - 1, index));
    setActive(wanted);
    bring(wanted);
  };
  const key = (event: KeyboardEvent) => {
    const page = Math.max(1, visible - 2);
    const moves: { [key: string]: number } = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: props.count - 1 };
    if (event.key in moves) {
      event.preventDefault();
      move(moves[event.key]);
    } else if ((event.key === "Enter" || event.key === " ") && props.count) {
      event.preventDefault();
      props.choose(active);
    }
  };
  const rows = [];
  for (let i = from; i < to; i++) {
    const at = full <= MOST ? i * ROW : Math.min(top, scroll) + (i - exact) * ROW;
    rows.push(
      <div
        key={i}
        id={"row-" + i}
        role="option"
        aria-selected={i === props.chosen}
        aria-posinset={i + 1}
        aria-setsize={props.open ? -1 : props.count}
        class={"row" + (i === active ? " active" : "") + (i === props.chosen ? " chosen" : "")}
        style={{ top: at + "px" }}
        onClick={() => {
          setActive(i);
          props.choose(i);
        }}
      >
        {props.row(i)}
      </div>,
    );
  }
  return (
    <div
      class="list"
      ref={box}
      role="listbox"
      aria-label={props.label}
      tabIndex={0}
      aria-activedescendant={props.count ? "row-" + active : undefined}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      onKeyDown={key}
    >
      {props.count === 0 && !props.open && (
        <div class="none" role="option" aria-selected={false}>
          {props.empty}
        </div>
      )}
      <div class="space" role="presentation" style={{ height: shown + "px" }}>
        {rows}
      </div>
    </div>
  );
}
