import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/e2e/**/*.test.ts"],
    environment: "node",
    testTimeout: 150_000, // wide, for machines that have much else to do
    hookTimeout: 150_000,
    expect: { poll: { timeout: 60_000 } },
    fileParallelism: false,
  },
});
