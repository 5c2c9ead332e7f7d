// The CT with its masks in NiiVue: one volume of codes for all masks, half resolution first.

import { bytes } from "./api.js";

const NV = () => window.niivue;
export const WINDOWS = { lung: { level: -600, width: 1500 }, mediastinum: { level: 40, width: 400 } };
const ENHANCED = { level: 120, width: 320 };

// Planes that cut the volume in 3-D: the front half of the body off, or all of it for surfaces.
const [CUT, ALL_OFF] = [[0.05, 180, 0], [-2, 180, 0]];

export function hasWebGL() {
  return Boolean(document.createElement("canvas").getContext("webgl2")) && Boolean(NV());
}

// Without a GPU a picture in 3-D takes as long as all slices together: it is drawn when it is asked for.
function isSlow(gl) {
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  return /swiftshader|llvmpipe|software/i.test(known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : "");
}

// The end of a context must not wait for the garbage collector: a page may have 16 of them.
export function release(canvas) {
  canvas?.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
}

export class CtView {
  constructor(canvas, path, scene, heard) {
    this.canvas = canvas;
    this.path = path;
    this.scene = scene;
    this.heard = heard;
    this.on = new Set((scene.layers ?? []).map((layer) => layer.bit));
    this.opacity = 0.5;
    this.heat = 0;
    this.window = scene.windows.optimal ?? WINDOWS.lung;
    this.quality = scene.volumes.ct.half ? "half" : "full";
  }

  async start() {
    const { Niivue, SHOW_RENDER, DRAG_MODE } = NV();
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.25, 0.82, 0.87, 0.8], crosshairWidth: 1,
      crosshairWidthUnit: "mm", crosshairGap: 12,
      isRadiologicalConvention: true, dragAndDropEnabled: false, loadingText: "",
      multiplanarShowRender: SHOW_RENDER.ALWAYS, show3Dcrosshair: true, logLevel: "error",
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", isAntiAlias: false,
      fontSizeScaling: 0.6, fontColor: [1, 0.86, 0.45, 1], showAllOrientationMarkers: true,
      meshThicknessOn2D: 2,
    });
    this.nv.setMouseEventConfig({ // as an option it would be dropped
      leftButton: { primary: DRAG_MODE.crosshair }, rightButton: DRAG_MODE.windowing, centerButton: DRAG_MODE.pan,
    });
    await this.nv.attachToCanvas(this.canvas);
    if (this.closed) return this.close();
    if (isSlow(this.nv.gl)) this.nv.opts.multiplanarShowRender = SHOW_RENDER.NEVER;
    this.nv.onLocationChange = (found) => {
      const value = found.values[0]?.value;
      this.heard.location?.(found, Number.isFinite(value) ? Math.round(value) : null);
      if (this.linked && !this.following) this.lead([...found.mm].slice(0, 3));
    };
    for (const moved of ["mousemove", "mouseup", "touchmove"]) this.canvas.addEventListener(moved, () => this.heedWindow());
    await this.load();
    if (!this.closed) this.nv.setClipPlane(CUT);
  }

  // Loads all volumes at this quality; what was shown stays until they are there.
  async load() {
    const { volumes } = this.scene;
    const ct = await this.volume(this.first ?? "ct", "gray", 1, this.bounds());
    const masks = volumes.masks && !this.first ? await this.volume("masks", "gray", this.opacity, [0, 255]) : null;
    if (this.closed) return;
    const at = this.nv.volumes.length ? this.place() : null;
    for (const old of [...this.nv.volumes]) this.nv.removeVolume(old);
    this.heatVolume = null;
    this.nv.addVolume(ct);
    if (masks) {
      masks.setColormapLabel(this.colours());
      this.nv.addVolume(masks);
    }
    if (at) this.go(at);
    if (this.heat) await this.setHeat(this.heat);
    this.heard.loaded?.(this.quality);
  }

  async volume(name, colours, opacity, [low, high]) {
    const files = this.scene.volumes[name];
    const file = (this.quality === "half" && files.half) || files.full;
    const buffer = await bytes(`${this.path}/view/${file}`, (size) => this.heard.loading?.(name, size));
    return NV().NVImage.new(buffer, file.replace(".gz", ""), colours, opacity, null, low, high, true);
  }

  async setQuality(quality) {
    this.quality = quality;
    await this.load();
  }

  bounds() {
    const { level, width } = this.first === "enhanced" ? (this.enhancedWindow ?? ENHANCED) : this.window;
    return [level - width / 2, level + width / 2];
  }

  setWindow(window) {
    if (!this.nv.volumes.length) return; // a field of a view that was left
    this.window = window;
    [this.nv.volumes[0].cal_min, this.nv.volumes[0].cal_max] = this.bounds();
    this.nv.updateGLVolume();
    this.heard.window?.(window);
  }

  // The mouse changes the window in the viewer, which does not say so.
  heedWindow() {
    const shown = this.nv.volumes[0];
    if (!shown) return;
    const [low, high] = this.bounds();
    if (shown.cal_min === low && shown.cal_max === high) return;
    const window = { level: (shown.cal_max + shown.cal_min) / 2, width: shown.cal_max - shown.cal_min };
    if (this.first === "enhanced") this.enhancedWindow = window;
    else this.window = window;
    this.heard.window?.(window);
  }

  // The colour of each code is that of its last mask that is on: lesions lie over lungs.
  colours() {
    const { codes } = this.scene.volumes.masks;
    const found = { R: [], G: [], B: [], A: [], I: [], labels: [] };
    codes.forEach((bits, code) => {
      const layer = this.scene.layers.findLast((one) => bits & (1 << one.bit) && this.on.has(one.bit));
      const [r, g, b] = layer?.colour ?? [0, 0, 0];
      found.R.push(r);
      found.G.push(g);
      found.B.push(b);
      found.A.push(layer ? 255 : 0);
      found.I.push(code);
      found.labels.push(layer?.name ?? "");
    });
    return found;
  }

  setLayer(bit, on) {
    this.on[on ? "add" : "delete"](bit);
    this.recolour();
  }

  setAll(on) {
    this.on = new Set(on ? this.scene.layers.map((layer) => layer.bit) : []);
    this.recolour();
  }

  recolour() {
    const masks = this.nv.volumes[1];
    if (!masks || !this.scene.volumes.masks) return;
    masks.setColormapLabel(this.colours());
    this.nv.updateGLVolume();
  }

  setOpacity(value) {
    this.opacity = value;
    if (this.scene.volumes.masks) this.nv.setOpacity(1, value);
  }

  async setHeat(value) {
    this.heat = value;
    if (!this.heatVolume && value) {
      const heat = await this.volume("heat", "inferno", value, [40, 255]);
      if (this.closed) return;
      this.heatVolume = heat;
      this.nv.addVolume(this.heatVolume);
      this.heard.loaded?.(this.quality);
    } else if (this.heatVolume) this.nv.setOpacity(this.nv.volumes.indexOf(this.heatVolume), value);
  }

  setView(name) {
    const { SLICE_TYPE } = NV();
    this.nv.setSliceType(SLICE_TYPE[{ multi: "MULTIPLANAR" }[name] ?? name.toUpperCase()]);
  }

  place() {
    return [...this.nv.frac2mm(this.nv.scene.crosshairPos)].slice(0, 3);
  }

  // Moves the cross-hair to a place in RAS, mm.
  go(ras) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(ras);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }

  // Takes the one beside it along; what that one then says of its own place changes nothing here.
  lead(ras) {
    this.following = this.linked.following = true;
    this.linked.go(ras);
    this.following = this.linked.following = false;
  }

  step(axis, by) {
    const move = [0, 0, 0];
    move[axis] = by;
    this.nv.moveCrosshairInVox(...move);
  }

  // Surfaces are STL in LPS; NiiVue shows RAS.
  async setSurfaces(on) {
    this.nv.opts.isClipAllVolumes = on; // masks, too
    this.nv.setClipPlane(on ? ALL_OFF : CUT);
    if (!on) {
      for (const mesh of [...this.nv.meshes]) this.nv.removeMesh(mesh);
      return;
    }
    const meshes = [];
    for (const name of this.scene.meshes) {
      const stem = name.replace(/^.*\//, "").replace(".stl", "");
      if (stem === "lesions-all") continue;
      const buffer = await bytes(`${this.path}/files/${name}`);
      const layer = this.scene.layers.find((one) => stem.replace("lesions-", "").startsWith(one.name));
      const colour = new Uint8Array([...(layer?.colour ?? [255, 214, 0]), 255]);
      const mesh = await NV().NVMesh.readMesh(buffer, `${stem}.stl`, this.nv.gl, stem.startsWith("lung") ? 0.25 : 1, colour, true);
      for (let i = 0; i < mesh.pts.length; i += 3) {
        mesh.pts[i] = -mesh.pts[i];
        mesh.pts[i + 1] = -mesh.pts[i + 1];
      }
      mesh.updateMesh(this.nv.gl);
      meshes.push(mesh);
    }
    this.nv.meshes = meshes; // at once: addMesh loads all volumes again each time
    this.nv.drawScene();
  }

  link(other) {
    this.linked = other;
    other.linked = this;
    this.nv.broadcastTo([other.nv], { "2d": true, "3d": true });
    other.nv.broadcastTo([this.nv], { "2d": true, "3d": true });
  }

  // What is still on its way finds it closed.
  close() {
    this.closed = true;
    if (!this.nv?.gl) return;
    this.nv.onLocationChange = () => {};
    for (const old of [...this.nv.volumes]) this.nv.removeVolume(old);
    this.nv.cleanup?.();
    release(this.canvas);
  }
}
