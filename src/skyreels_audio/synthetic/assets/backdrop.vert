in vec2 corner;
uniform vec2 offset, extent; // the part of the picture that is seen, in texture units
out vec2 uv;
void main() {
    uv = offset + extent * (0.5 + 0.5 * corner);
    gl_Position = vec4(corner, 0.9999, 1);
}
