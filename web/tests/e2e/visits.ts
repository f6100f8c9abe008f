// What the tests of a file share: a stage, and visits to it that end with each test, without problems.
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { openStage, type Scheme, type Size, type Stage, type StageOptions, type Visit, visit } from "./browser";

export class Visits {
  stage!: Stage;
  private at: Visit | undefined;

  constructor(options: StageOptions = {}) {
    beforeAll(async () => void (this.stage = await openStage(options)));
    afterAll(() => this.stage.close());
    afterEach(async () => {
      const problems = this.at?.problems ?? [];
      await this.leave();
      this.at = undefined;
      expect(problems).toEqual([]);
    });
  }

  readonly open = async (size?: Size, scheme?: Scheme, hash?: string): Promise<Page> =>
    this.openAt(this.stage, size, scheme, hash);

  // Another server.
  readonly openAt = async (
    where: { url: string; browser: Browser },
    ...how: [size?: Size, scheme?: Scheme, hash?: string]
  ): Promise<Page> => {
    this.at = await visit(where, ...how);
    return this.at.page;
  };

  async leave(): Promise<void> {
    await this.at?.close();
  }
}
