// What a tagger answers.

import { taken } from "./errors";
import { native } from "./native";
import type { CaptionOptions } from "./options";

/** One tag and how sure the model is of it. */
export interface Tag {
  /** The tag as the model's author wrote it, with underscores. */
  readonly name: string;
  /** The model's probability, 0 to 1. */
  readonly score: number;
  /** What kind of tag it is: Danbooru's number, 0 for general tags, 4 for characters, 9 for ratings. */
  readonly category: number;
  /** Its place among the model's labels. */
  readonly index: number;
}

type Scores = Record<string, number>;

/** The tags of one picture: plain data, which can be cloned and sent to workers. Iterating gives the characters, then the other tags. */
export class Tags implements Iterable<Tag> {
  /** All content ratings of the model, whatever their probability. */
  readonly ratings: readonly Tag[];
  /** The characters above the threshold. */
  readonly characters: readonly Tag[];
  /** All other tags above the threshold. */
  readonly tags: readonly Tag[];

  constructor(lists: { ratings?: readonly Tag[]; characters?: readonly Tag[]; tags?: readonly Tag[] } = {}) {
    this.ratings = lists.ratings ?? [];
    this.characters = lists.characters ?? [];
    this.tags = lists.tags ?? [];
  }

  /** The most probable rating; `undefined` if the model has no ratings. */
  get rating(): Tag | undefined {
    const [first, ...others] = this.ratings;
    return first && others.reduce((best, tag) => (tag.score > best.score ? tag : best), first);
  }

  /** The tags as one line. */
  caption(options?: CaptionOptions): string {
    return taken(
      native.caption({ ratings: [...this.ratings], characters: [...this.characters], tags: [...this.tags] }, options),
    );
  }

  /** Three objects from names to probabilities: `ratings`, `characters` and `tags`. What `JSON.stringify` writes. */
  toJSON(): { ratings: Scores; characters: Scores; tags: Scores } {
    const scores = (tags: readonly Tag[]) => Object.fromEntries(tags.map(({ name, score }) => [name, score]));
    return { ratings: scores(this.ratings), characters: scores(this.characters), tags: scores(this.tags) };
  }

  /** The number of characters and other tags. */
  get size(): number {
    return this.characters.length + this.tags.length;
  }

  /** Whether a character or another tag of this name was kept. */
  has(name: string): boolean {
    return [...this].some((tag) => tag.name === name);
  }

  *[Symbol.iterator](): IterableIterator<Tag> {
    yield* this.characters;
    yield* this.tags;
  }
}
