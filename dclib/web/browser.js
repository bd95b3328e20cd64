// From the browser into a FileUpload of ipywidgets 7 and 8: what is chosen, dropped or filmed.
// The upload's file input is in no page; it is caught when the button asks it for files.
(() => {
  if (window.dclib) return;

  const megabytes = (files) => (files.reduce((sum, file) => sum + file.size, 0) / 1e6).toFixed(1);
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  function catchInput(button) {
    const click = HTMLInputElement.prototype.click;
    let input;
    HTMLInputElement.prototype.click = function () { input = this; };
    try { button.click(); } finally { HTMLInputElement.prototype.click = click; }
    return input;
  }

  function say(panel, text) {
    const line = document.createElement("p");
    line.textContent = text;
    panel.querySelector(".dc-status").replaceChildren(line);
    return line;
  }

  // The kernel writes over the line as soon as the files are there: a line that stays is a loss.
  async function watch(panel, files) {
    if (!files.length) return;
    const what = files.map((file) => file.name).join(", ") + ` (${megabytes(files)} MB)`;
    const line = say(panel, `Sending ${what} …`);
    await wait(8000 + 1000 * megabytes(files));
    if (line.isConnected) {
      say(panel, `${what} has not arrived. If another cell is still running, wait for it. If not, ` +
        "it was too large: Jupyter drops more than 10 MB without a word unless it was started with " +
        "make lab or make app, and Colab may lose 1 MB (use its own dialog).");
    }
  }

  function send(panel, files) {
    const transfer = new DataTransfer();
    for (const file of files) transfer.items.add(file);
    panel.dcInput.files = transfer.files;
    panel.dcInput.dispatchEvent(new Event("change"));
  }

  function why(error) {
    if (error.name === "NotAllowedError") return "The browser was not allowed to use the camera.";
    if (error.name === "NotFoundError") return "No camera was found.";
    return `The camera cannot be used: ${error.message}`;
  }

  // Opened once, and closed when its page or its panel is.
  async function openCamera(panel) {
    if (!navigator.mediaDevices) {
      say(panel, "The browser gives a camera to pages from this computer (localhost) or by https only.");
      return null;
    }
    if (panel.dcOpening) return null;
    panel.dcOpening = true;
    try {
      const video = panel.querySelector("video");
      const stream = await navigator.mediaDevices.getUserMedia({ video: true });
      video.srcObject = stream;
      stream.getTracks()[0].onended = () => {
        closeCamera(panel, video);
        say(panel, "The camera has stopped by itself.");
      };
      const timer = setInterval(() => {
        if (!panel.isConnected) closeCamera(panel, video);
        if (video.srcObject !== stream) clearInterval(timer);
      }, 300);
      await video.play();
      panel.classList.add("dc-filming");  // from now on there are pictures to take
      return video;
    } catch (error) {
      closeCamera(panel, panel.querySelector("video"));
      say(panel, why(error));
      return null;
    } finally {
      panel.dcOpening = false;
    }
  }

  function closeCamera(panel, video) {
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    video.srcObject = null;
    panel.classList.remove("dc-filming");
  }

  async function grab(video, name, side = 1024) {
    const canvas = document.createElement("canvas");
    const ratio = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * ratio);
    canvas.height = Math.round(video.videoHeight * ratio);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    return new File([blob], name, { type: "image/jpeg" });
  }

  async function photo(panel) {
    const video = panel.querySelector("video");
    if (Date.now() - (panel.dcTaken ?? 0) < 500) return;  // the second press of two
    if (panel.classList.contains("dc-filming")) {
      panel.dcTaken = Date.now();
      const file = await grab(video, "camera.jpg");
      closeCamera(panel, video);
      send(panel, [file]);
    } else {
      await openCamera(panel);
    }
  }

  // Until something in the panel changes, a second at most.
  const change = (panel) => new Promise((done) => {
    const end = () => { observer.disconnect(); clearTimeout(timer); done(); };
    const observer = new MutationObserver(end), timer = setTimeout(end, 1000);
    observer.observe(panel, { childList: true, subtree: true, attributes: true });
  });

  // A frame is named by its time, and one is on its way at most; those in between are dropped, so
  // that nothing ever queues, not even behind a cell that keeps the kernel busy.
  async function film(panel) {
    const video = await openCamera(panel);
    if (!video) return;
    const stream = video.srcObject, line = panel.querySelector(".dc-age");
    const between = 1000 / panel.querySelector("[data-rate]").dataset.rate;
    const filming = () => panel.isConnected && video.srcObject === stream;
    const answer = () => Number(panel.querySelector("[data-answered]").dataset.answered);
    let shown = 0, used = 0;
    const count = () => { shown += 1; video.requestVideoFrameCallback?.(count); };
    count();
    panel.dcSent ??= 0;
    while (filming()) {
      if (answer() >= panel.dcSent) {
        panel.dcSent = Date.now();
        used += 1;
        send(panel, [await grab(video, `${panel.dcSent}.jpg`, 512)]);
      }
      while (filming() && answer() < panel.dcSent) {
        const seconds = Math.round((Date.now() - panel.dcSent) / 1000);
        if (seconds > 1) line.textContent = `Waiting for the kernel for ${seconds} s.`;
        await change(panel);
      }
      if (!filming()) break;
      const age = Date.now() - panel.dcSent;
      line.textContent = `The answer came ${age} ms after its frame; ${used} frames were answered, ` +
        `${Math.max(0, shown - used)} dropped.`;
      await wait(Math.max(0, between - age));
    }
  }

  // A box dragged over a photo goes into the field below it, in percent of the photo's sides.
  function drag(stage, start) {
    const frame = stage.getBoundingClientRect(), box = document.createElement("i");
    const place = (event) => [
      (event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height,
    ].map((share) => 100 * Math.min(1, Math.max(0, share)));
    const from = place(start);
    let ends = [];
    const draw = (event) => {
      const to = place(event);
      ends = [0, 1].map((k) => Math.min(from[k], to[k])).concat([0, 1].map((k) => Math.max(from[k], to[k])));
      box.style.cssText = `left: ${ends[0]}%; top: ${ends[1]}%; ` +
        `width: ${ends[2] - ends[0]}%; height: ${ends[3] - ends[1]}%`;
    };
    const end = (event) => {
      stage.onpointermove = stage.onpointerup = stage.onpointercancel = null;
      box.remove();
      if (event.type !== "pointerup") return;
      const field = stage.closest(".dc-picker").querySelector("input");
      field.value = ends.map((share) => share.toFixed(2)).join(" ");
      field.dispatchEvent(new Event("change", { bubbles: true }));
    };
    start.preventDefault();
    stage.setPointerCapture(start.pointerId);
    box.className = "dc-face dc-drag";
    stage.append(box);
    draw(start);
    [stage.onpointermove, stage.onpointerup, stage.onpointercancel] = [draw, end, end];
  }

  // Of several answers all but the first are folded; the overview opens them, and their names do.
  function unfold(panel, target) {
    const link = target.closest("[data-answer]"), name = target.closest(".dc-verdict h4");
    if (name) name.closest(".dc-one-photo")?.classList.toggle("dc-folded");
    if (!link) return;
    const answer = panel.querySelectorAll(".dc-one-photo")[link.dataset.answer];
    answer.classList.remove("dc-folded");
    answer.scrollIntoView();
  }

  function act(panel, target) {
    unfold(panel, target);
    if (target.closest(".dc-photo-button")) photo(panel);
    if (target.closest(".dc-film-button")) film(panel);
    if (target.closest(".dc-stop-button")) closeCamera(panel, panel.querySelector("video"));
  }

  async function start(mark) {
    for (let tries = 0; tries < 200; tries += 1) {
      const panel = mark.closest(".dc-browser");
      const button = panel && panel.querySelector(".widget-upload");
      if (button) return join(panel, button);
      await wait(50);
    }
  }

  function join(panel, button) {
    panel.dcInput = catchInput(button);
    const live = panel.querySelector(".dc-film-button");
    if (!live) panel.dcInput.addEventListener("change", () => watch(panel, [...panel.dcInput.files]));
    panel.addEventListener("click", (event) => act(panel, event.target));
    panel.addEventListener("pointerdown", (event) => {
      const stage = event.target.closest(".dc-drawing");
      if (stage && event.isPrimary) drag(stage, event);
    });
    panel.addEventListener("dragover", (event) => event.preventDefault());
    panel.addEventListener("drop", (event) => {
      event.preventDefault();
      if (!live && event.dataTransfer.files.length) send(panel, event.dataTransfer.files);
    });
  }

  window.dclib = { start };
})();
window.dclib.start(this);
