// The page that needs no installation: its models lie in blocks beside this script, 8 bits a weight.

import { App } from "./live/app.js";

const app = new App((name) => document.getElementById(name).textContent);
// for who opens the console: regard.model("transformer").translate("forty-two").text
globalThis.regard = app;
app.start();
