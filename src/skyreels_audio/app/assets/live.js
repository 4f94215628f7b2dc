// The live tab: a video fed from a WebSocket through Media Source, a microphone or a spoken text into it; and whoever
// asks for a video is shown how far it is. Loaded once by the page; works on the elements inside #live.
(() => {
  const $ = (name) => document.querySelector(`#live [data-live=${name}]`);
  let socket, source, buffer, waiting = [], hurry = false, microphone;

  const tell = (text) => { $("status").textContent = text; };

  function allow(running) {  // what makes no sense before there is a face cannot be pressed
    for (const act of ["stop", "speak", "listen", "interrupt"]) {
      document.querySelector(`#live [data-act=${act}]`).disabled = !running;
    }
  }

  function feed() {
    if (!buffer || buffer.updating || source.readyState !== "open") return;
    const video = $("video");
    if (buffer.buffered.length) {
      const start = buffer.buffered.start(0), end = buffer.buffered.end(buffer.buffered.length - 1);
      // Keep near what is newest: a viewer who lags answers late.
      if (end - video.currentTime > 1.5 || video.currentTime < start) video.currentTime = Math.max(start, end - 0.2);
      if (video.currentTime - start > 30) return buffer.remove(start, video.currentTime - 10);
    }
    if (waiting.length) return buffer.appendBuffer(waiting.shift());
    if (hurry && buffer.buffered.length) {
      hurry = false;
      video.currentTime = buffer.buffered.end(buffer.buffered.length - 1) - 0.04;
    }
  }

  function open(mime) {
    source = new MediaSource();
    const video = $("video");
    video.src = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      buffer = source.addSourceBuffer(mime);
      buffer.addEventListener("updateend", feed);
      feed();
      video.play().catch(() => tell("Press play."));
    });
  }

  function start() {
    stop();
    let refused = false;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}/api/live`);
    socket.binaryType = "arraybuffer";
    tell("Getting ready…");
    socket.onopen = () => socket.send(JSON.stringify({
      picture: $("picture").value, consent: $("consent").checked,
    }));
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) { waiting.push(data); feed(); return; }
      const said = JSON.parse(data);
      if (said.error) { refused = true; tell(said.error); }
      if (said.mime) { open(said.mime); allow(true); tell("Speak, or let a text be spoken."); }
      if (said.seconds !== undefined) {
        $("pace").textContent = `${said.seconds.toFixed(0)} s` + (said.late > 0.5 ? `, ${said.late} s behind: this machine is too slow` : "");
      }
    };
    socket.onclose = () => { allow(false); if (!refused) tell("Ended."); };
  }

  function stop() {
    if (socket) { socket.onclose = null; socket.close(); }
    if (microphone) { microphone.getTracks().forEach((track) => track.stop()); microphone = null; }
    socket = buffer = undefined; waiting = []; hurry = false;
    allow(false);
  }

  async function speak() {  // a text, spoken by the server's synthesizer, sent as if it came from a stream
    const form = new FormData();
    form.set("text", $("text").value);
    form.set("speaker", $("speaker").value);
    const answer = await fetch("/api/speech", { method: "POST", body: form });
    if (!answer.ok) return tell((await answer.json()).detail);
    const wav = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(await answer.arrayBuffer());
    send(wav.getChannelData(0));
  }

  function send(samples) {
    const data = new Int16Array(samples.length);
    for (let i = 0; i < samples.length; i++) data[i] = Math.max(-1, Math.min(1, samples[i])) * 32767;
    for (let i = 0; i < data.length && socket?.readyState === 1; i += 8000) socket.send(data.slice(i, i + 8000).buffer);
  }

  async function listen() {
    microphone = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true } });
    const context = new AudioContext({ sampleRate: 16000 });
    const code = "registerProcessor('tap', class extends AudioWorkletProcessor {" +
      "process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; } })";
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap");
    let held = [];
    tap.port.onmessage = ({ data }) => {
      held.push(...data);
      if (held.length >= 1600) { send(held); held = []; }
    };
    context.createMediaStreamSource(microphone).connect(tap);
    tell("Listening.");
  }

  function interrupt() {
    socket?.send(JSON.stringify({ interrupt: true }));
    hurry = true;  // past what came before: none of it may be left out, each frame is told by those before it
    feed();
  }

  const acts = { start, stop: () => { stop(); tell("Ended."); }, speak, listen, interrupt };
  document.addEventListener("click", (event) => {
    if (event.target.closest("#make")) document.querySelector("#progress").scrollIntoView({ block: "nearest" });
    const act = event.target.closest("#live [data-act]")?.dataset.act;
    if (act) Promise.resolve(acts[act]()).catch((error) => tell(String(error.message || error)));
  });
  document.addEventListener("change", async (event) => {
    if (!event.target.matches("#live [data-live=file]") || !event.target.files.length) return;
    const form = new FormData();
    form.set("files", event.target.files[0]);
    const answer = await fetch("/gradio_api/upload", { method: "POST", body: form });
    if (!answer.ok) return tell(await answer.text());
    $("picture").value = (await answer.json())[0];
    tell("The picture is here.");
  });
})();
