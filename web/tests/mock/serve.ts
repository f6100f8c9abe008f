// npx vite-node tests/mock/serve.ts: the app before the scripted server, to look at by hand.
import { startMock } from "./server";

const mock = await startMock({ port: Number(process.env["PORT"] ?? 8080) });
console.log(mock.url);
