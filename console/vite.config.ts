// The page is four files with fixed names, which src/http/console.S embeds. Built twice from the same sources they are the same bytes.
import { defineConfig } from "vite";

export default defineConfig({
  base: "/console/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    target: "es2021",
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        inlineDynamicImports: true,
        entryFileNames: "console.js",
        assetFileNames: "console[extname]",
      },
    },
  },
});
