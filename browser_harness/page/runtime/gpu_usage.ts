/** What a GPU buffer is for: bits of the WebGPU specification, whose names TypeScript lacks. */
export const USAGE = { MAP_READ: 0x01, COPY_SRC: 0x04, COPY_DST: 0x08, UNIFORM: 0x40, STORAGE: 0x80 } as const;

/** Mapping a buffer to read it: likewise. */
export const MAP_READ_MODE = 0x01;
