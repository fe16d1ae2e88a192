// state: what all views share: the token's right, the databases, the database that is open, the contract.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Contract } from "./contract";

export type Right = "read" | "write" | "admin";
const RANK: Right[] = ["read", "write", "admin"];

export interface Shared {
  db: string;
  databases: string[];
  right: Right;
  version: string;
  contract: Contract | null;
  /** Asks again which databases there are, and what the token may do. */
  refresh: () => Promise<void>;
  /** Says it to the user, and to a screen reader. */
  say: (text: string) => void;
}

export const SharedContext = createContext<Shared>(null as unknown as Shared);
export const useShared = (): Shared => useContext(SharedContext);
export const may = (shared: Shared, right: Right): boolean => RANK.indexOf(shared.right) >= RANK.indexOf(right);
